"""Every DICOM series that is no scan: one line, which file and what is wrong."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, RLELossless

from attunet_jax.errors import BadData
from attunet_jax.volume import read_scan

HU = np.random.default_rng(1).integers(-1024, 3000, (6, 7, 5)).astype(np.int16)


def refusal(folder: Path, series: str | None = None) -> str:
    with pytest.raises(BadData) as caught:
        read_scan(folder, series)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(folder))
    return message


def edit(path: Path, **tags) -> None:
    """Sets tags of a file; None removes one."""
    data = pydicom.dcmread(path)
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    data.save_as(path)


@pytest.mark.parametrize(
    "tag",
    [
        "Rows",
        "Columns",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "RescaleSlope",
        "RescaleIntercept",
        "BitsAllocated",
        "PixelData",
    ],
)
def test_a_missing_tag_is_named_with_its_file(write_series, tmp_path, tag):
    files = write_series(tmp_path, HU)
    edit(files[2], **{tag: None})
    message = refusal(tmp_path)
    if tag == "PixelData":
        assert message.startswith(f"{files[2]}: no pixels in it")
    else:
        assert message.startswith(f"{files[2]}: DICOM tag {tag} is missing")


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"PixelSpacing": [0.5]}, "tag PixelSpacing is 0.5, not 2 numbers"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"NumberOfFrames": 9}, "9 frames in one file (enhanced DICOM)"),
        ({"SamplesPerPixel": 3}, "a colour picture"),
        ({"Columns": 6}, "7 x 6 pixels of 0.75 x 0.5 mm along (1, 0, 0, 0, 1, 0), unl"),
        ({"PixelSpacing": [0.75, 0.6]}, "7 x 5 pixels of 0.75 x 0.6 mm"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "along (0, 1, 0, 0, 0, 1)"),
        ({"ImagePositionPatient": [-28, -40, 55]}, "lies 2 mm sideways of the other"),
        ({"PixelData": b"12"}, "its pixels (Explicit VR Little Endian) cannot be deco"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_slice_unlike_the_others_is_named(write_series, tmp_path, tags, words):
    files = write_series(tmp_path, HU)
    edit(files[2], **tags)
    message = refusal(tmp_path)
    assert message.startswith(f"{files[2]}: ") and words in message


def test_a_missing_slice_is_named_by_its_neighbours(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    files[2].unlink()
    files[3].unlink()
    message = refusal(tmp_path)
    assert message.startswith(
        f"{files[4]}: 2 slices are missing between this and IM0002"
    )
    assert "(7.5 mm apart, others 2.5 mm)" in message


def test_two_slices_of_one_position_are_both_named(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    shutil.copy(files[3], tmp_path / "copy of IM0004")
    changed = (HU[3].astype("<i2") + 1024 + 1).tobytes()
    edit(tmp_path / "copy of IM0004", PixelData=changed)
    message = refusal(tmp_path)
    assert "IM0004: a second slice at the position of " in message
    assert "IM0004 (0 mm apart, others 2.5 mm)" in message and "copy of" in message


def test_uneven_slices_are_refused(write_series, tmp_path):
    places = tuple([-30, -40, z] for z in (50, 52.5, 55, 58, 61, 64))
    write_series(tmp_path, HU, ImagePositionPatient=places)
    assert "slices are unevenly spaced, 2.5 to 3 mm apart" in refusal(tmp_path)


def test_positions_rounded_to_a_tenth_of_a_mm_are_even(write_series, tmp_path):
    places = tuple([-30, -40, round(50 + 1.25 * k, 1)] for k in range(6))
    write_series(tmp_path, HU, ImagePositionPatient=places)
    volume = read_scan(tmp_path)
    np.testing.assert_allclose(volume.spacing_mm, (1.24, 0.75, 0.5))  # 50 to 56.2


def test_a_tilted_gantry_is_reported_in_degrees(write_series, tmp_path):
    # 2.5 mm up and 0.5 mm back a slice: arctan(0.2) is 11.3 degrees.
    places = tuple([-30, -40 + 0.5 * k, 50 + 2.5 * k] for k in range(6))
    write_series(tmp_path, HU, ImagePositionPatient=places)
    assert "gantry tilt of 11.3 degrees" in refusal(tmp_path)


def test_several_series_are_listed_with_their_slices(write_series, tmp_path):
    write_series(tmp_path, HU, name="a{}", uid="1.2.3")
    write_series(tmp_path, HU[:4], name="b{}", uid="1.2.4", SeriesDescription="Thorax")
    message = refusal(tmp_path)
    assert "2 series in one folder: 1.2.3 (6 slices, 'Abdomen 2.5')" in message
    assert (
        "1.2.4 (4 slices, 'Thorax')" in message
        and "ask for one by --series=UID" in message
    )
    assert "no CT series 1.2.5 in it: 1.2.3" in refusal(tmp_path, "1.2.5")


@pytest.mark.parametrize(
    "tags, what",
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "6 secondary captures"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "6 localizers"),
        ({"Modality": "MR"}, "6 files of modality MR"),
    ],
    ids=str,
)
def test_a_folder_without_any_ct_slice_says_what_it_holds(
    write_series, tmp_path, tags, what
):
    write_series(tmp_path, HU, **tags)
    assert refusal(tmp_path).endswith(f"no slices of a CT series in it, only {what}")


def test_a_folder_above_the_series_names_the_folder_below(write_series, tmp_path):
    write_series(tmp_path / "study" / "series", HU)
    assert "but below, in study/series; name or keep one" in refusal(tmp_path)


def test_an_empty_folder_and_one_slice_are_no_scan(write_series, tmp_path):
    assert "no slices of a CT series in it; name the" in refusal(tmp_path)
    (file,) = write_series(tmp_path, HU[:1])
    assert refusal(tmp_path).startswith(f"{file}: the only slice")
    assert refusal(file) == f"{file}: one file of a DICOM series; name its folder"


@pytest.mark.parametrize("size", [0, 100, 132, 400, 700])
def test_a_truncated_file_is_named(write_series, tmp_path, size):
    files = write_series(tmp_path, HU, name="{}.dcm")
    files[2].write_bytes(files[2].read_bytes()[:size])
    assert refusal(tmp_path).startswith(f"{files[2]}: ")


def test_noise_after_the_magic_word_is_one_line(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    noise = np.random.default_rng(2).bytes(3000)
    files[2].write_bytes(bytes(128) + b"DICM" + noise)
    assert refusal(tmp_path).startswith(f"{files[2]}: ")


def test_pixels_of_a_kind_that_is_not_decoded_here_are_named(write_series, tmp_path):
    for path in write_series(tmp_path, HU):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = HTJ2KLossless
        data.PixelData = encapsulate([data.PixelData])
        data["PixelData"].VR = "OB"
        data.save_as(path)
    message = refusal(tmp_path)
    assert (
        "compressed as High-Throughput JPEG 2000 Image Compression (Lossless" in message
    )
    assert "(1.2.840.10008.1.2.4.201)" in message and "gdcmconv --raw" in message


def test_a_damaged_compressed_slice_is_named(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    data = pydicom.dcmread(files[2])
    data.compress(RLELossless)
    data.PixelData = encapsulate([b"\x02" + bytes(70)])
    data.save_as(files[2])
    message = refusal(tmp_path)
    assert message.startswith(
        f"{files[2]}: its pixels (RLE Lossless) cannot be decoded"
    )


def test_absurd_sizes_are_refused_before_memory_is_asked_for(write_series, tmp_path):
    write_series(tmp_path, HU, Rows=65535, Columns=65535)
    assert "65535 x 65535 pixels of 0.75 x 0.5 mm" in refusal(tmp_path)
    write_series(tmp_path, HU, Rows=30000, Columns=30000)
    assert "30000 x 30000 pixels do not fit in the file" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_named(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    files[2].chmod(0)
    assert refusal(tmp_path).startswith(f"{files[2]}: cannot be read (Permission")
