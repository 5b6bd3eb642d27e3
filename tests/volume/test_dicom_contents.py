"""Several scans in a DICOM folder, and files beside them that are none."""

import shutil

import numpy as np
import pydicom
import pytest

from attunet_jax.data.identity import find_scans
from attunet_jax.errors import BadData
from attunet_jax.volume import read_scan
from attunet_jax.volume.dicom.contents import contents

HU = np.random.default_rng(0).integers(-1024, 3000, (6, 7, 5)).astype(np.int16)
OTHER = HU[::-1] + 7  # a second phase on the same positions
FIRST, SECOND = tuple(range(1, 7)), tuple(range(7, 13))


def scans_in(folder):
    """Identity -> HU of each scan, as prediction finds and reads them."""
    found = find_scans(folder)
    assert found.refused == []
    return {s.identity: read_scan(s.path, s.series).voxels for s in found.scans}


def two(write_series, folder, first=None, second=None, **both):
    """Two phases of one series; `first` and `second` are tags of one of them."""
    words = {"InstanceNumber": FIRST} | both | (first or {})
    write_series(folder, HU, name="a{}", **words)
    words = {"InstanceNumber": SECOND} | both | (second or {})
    write_series(folder, OTHER, name="b{}", **words)


def times(start, step=1):
    return tuple(f"1015{start + step * k:02}" for k in range(6))


ACQ1, ACQ2 = {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}


def each(tag, one, other):
    return {tag: one}, {tag: other}


# What tells the phases apart: the names of the two, and the tags of each.
PHASES = {
    "acquisition_number": ("acq1", "acq2", ACQ1, ACQ2),
    "acquisition_time": (
        *("t101500", "t101530"),
        *each("AcquisitionTime", "101500", "101530"),
    ),
    "time_of_each_slice": (
        *("t101500", "t101530"),
        *each("ContentTime", times(0), times(30)),
    ),
    "position_in_time": (
        *("phase1", "phase2"),
        *each("TemporalPositionIdentifier", 1, 2),
    ),
    "voltage": ("kv100", "kv140", *each("KVP", 100, 140)),
    "kernel": ("B30f", "B70f", *each("ConvolutionKernel", "B30f", "B70f")),
    "order_alone": ("part1", "part2", {}, {}),
    "order_slice_by_slice": (
        *("part1", "part2"),
        *each("InstanceNumber", (1, 3, 5, 7, 9, 11), (2, 4, 6, 8, 10, 12)),
    ),
    "back_and_forth": ("part1", "part2", {}, {"InstanceNumber": SECOND[::-1]}),
    "half_a_slice_apart": ("acq1", "acq2", ACQ1, ACQ2 | {"origin": (-30, -40, 51.25)}),
    "a_part_of_a_slice": ("acq1", "acq2", ACQ1, ACQ2 | {"origin": (-30, -40, 51)}),
    "far_apart": ("acq1", "acq2", ACQ1, ACQ2 | {"origin": (-30, -40, 500)}),
}


@pytest.mark.parametrize("kind", PHASES)
def test_phases_of_one_series_are_scans_of_their_own(write_series, tmp_path, kind):
    one, other, first, second = PHASES[kind]
    folder = tmp_path / "s"
    two(write_series, folder, first, second)
    scans = scans_in(tmp_path)
    assert [*scans] == [f"s_{one}", f"s_{other}"]
    np.testing.assert_array_equal(scans[f"s_{one}"], HU)
    np.testing.assert_array_equal(scans[f"s_{other}"], OTHER)
    with pytest.raises(BadData, match="2 scans in one series, told apart .*--series="):
        read_scan(folder)
    for text in (other, f"1.2.826.0.1.3680043.8.498.1:{other}"):
        np.testing.assert_array_equal(read_scan(folder, text).voxels, OTHER)
    np.testing.assert_array_equal(read_scan(folder, one_of=(one,)).voxels, HU)
    (scan,) = find_scans(folder, series=one).scans
    assert scan.identity == f"s_{one}" and len(scan.files) == 6


def test_one_of_two_phases_that_is_not_whole_is_refused_alone(write_series, tmp_path):
    tags = [{"AcquisitionNumber": n} for n in (1, 2)]
    two(write_series, tmp_path / "s", *tags)
    (tmp_path / "s" / "b3").unlink()
    np.testing.assert_array_equal(read_scan(tmp_path / "s", "acq1").voxels, HU)
    with pytest.raises(BadData, match="b4: 1 slices are missing between this and b2"):
        read_scan(tmp_path / "s", "acq2")


def test_phases_of_a_tilted_gantry_keep_their_true_line(write_series, tmp_path):
    tilted = tuple([-30, -40 + 0.5 * k, 50 + 2.5 * k] for k in range(6))
    two(write_series, tmp_path / "s", ACQ1, ACQ2, ImagePositionPatient=tilted)
    for part in ("acq1", "acq2"):
        with pytest.raises(BadData, match="gantry tilt of 11.3 degrees"):
            read_scan(tmp_path / "s", part)


def test_slices_that_watch_the_contrast_agent_are_passed_over(write_series, tmp_path):
    write_series(tmp_path, HU, name="a{}", AcquisitionNumber=9)
    for watched in range(3):  # the same place again and again
        at = {"origin": (-30, -40, 55), "AcquisitionNumber": 2}
        tags = {"InstanceNumber": 20 + watched, "ContentTime": f"10150{watched}"}
        write_series(
            tmp_path, OTHER[watched : watched + 1], name=f"w{watched}", **at, **tags
        )
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, HU)
    assert contents(tmp_path).passed_over == {"slices of another acquisition": 3}


def test_a_lost_rotation_is_a_gap_and_no_second_scan(write_series, tmp_path):
    hu = np.concatenate([HU, OTHER])
    numbers = tuple(k // 3 + 1 for k in range(12))  # each rotation has its own
    files = write_series(tmp_path, hu, AcquisitionNumber=numbers)
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, hu)
    for file in files[6:9]:
        file.unlink()
    with pytest.raises(BadData, match="3 slices are missing between this and IM0006"):
        read_scan(tmp_path)


def test_planes_and_sizes_of_one_series_are_scans_of_their_own(write_series, tmp_path):
    write_series(tmp_path / "p", HU, name="a{}")
    write_series(tmp_path / "p", OTHER, name="b{}", orientation=(1, 0, 0, 0, 0, -1))
    assert [*scans_in(tmp_path)] == ["p_axial", "p_coronal"]
    write_series(tmp_path / "q", HU, name="a{}")
    write_series(tmp_path / "q", OTHER[:, :, :4], name="b{}")
    scans = scans_in(tmp_path / "q")
    assert [*scans] == ["q_7x4", "q_7x5"]
    np.testing.assert_array_equal(scans["q_7x4"], OTHER[:, :, :4])


def test_several_series_of_a_folder_are_named_by_their_numbers(write_series, tmp_path):
    write_series(tmp_path / "s", HU, name="a{}", uid="1.2.3", SeriesNumber=2)
    write_series(tmp_path / "s", OTHER, name="b{}", uid="1.2.4", SeriesNumber=5)
    scans = scans_in(tmp_path)
    assert [*scans] == ["s_series2", "s_series5"]
    np.testing.assert_array_equal(scans["s_series5"], OTHER)
    for text in ("series5", "1.2.4"):
        np.testing.assert_array_equal(read_scan(tmp_path / "s", text).voxels, OTHER)
    assert "series2, series5 (--series=NAME takes one)" in find_scans(tmp_path).notes[0]


def edit(path, *missing, **tags):
    data = pydicom.dcmread(path)
    for tag in missing:
        delattr(data, tag)
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(path)


PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def test_what_is_no_slice_is_passed_over_and_named(write_series, tmp_path):
    files = write_series(tmp_path, HU, name="{}.dcm")

    def stray(name, *missing, **tags):
        (path,) = write_series(tmp_path, HU[:1], name=name, **tags)
        edit(path, *missing)

    derived = ["DERIVED", "SECONDARY"]
    stray("a", *PLACE, ImageType=[*derived, "SCREEN SAVE"])
    stray("b", ImageType=[*derived, "SCREEN_CAPTURE"])  # with the place of its slice
    stray("c", *PLACE, ImageType=derived)
    stray("d", *PLACE)  # of no word at all
    stray("e", "ImagePositionPatient", SOPClassUID="1.2.840.10008.5.1.4.1.1.7.4")
    stray("f", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    stray("g", orientation=(1, 0, 0, 0, 0, -1))
    stray("h", orientation=(0, 1, 0, 0, 0, -1))
    stray("i", Modality="SR")
    stray("j", Columns=4, Rows=4)
    edit(tmp_path / "j", PixelData=bytes(32))
    shutil.copy(files[2], tmp_path / "3 (1).dcm")
    (tmp_path / "text.dcm").write_text("no DICOM file, whatever its name says" * 9)
    (tmp_path / "6.dcm.gz").write_bytes(b"\x1f\x8b")
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, HU)
    found = find_scans(tmp_path)
    assert len(found.scans) == 1
    assert {kind.partition(" (")[0]: n for kind, n in found.unused.items()} == {
        "screen captures": 2,
        "pictures without a position": 2,
        "secondary captures": 1,
        "localizers": 1,
        "pictures along another direction": 2,
        "structured reports": 1,
        "pictures of another size at the place of a slice": 1,
        "copies of slices": 1,
        "files named as DICOM that are none": 1,
        "compressed files": 1,
    }


def test_a_folder_of_pictures_alone_holds_no_scan(write_series, tmp_path):
    write_series(tmp_path / "scout", HU[:2], ImageType=["ORIGINAL", "LOCALIZER"])
    write_series(tmp_path / "axial", HU)
    found = find_scans(tmp_path)
    assert [scan.identity for scan in found.scans] == ["axial"]
    assert found.unused == {"localizers": 2}


def test_directions_that_differ_by_a_rounding_are_one(write_series, tmp_path):
    def direction(e):
        c = np.sqrt(1 - e * e)
        return [f"{v:.9f}" for v in (c, e, 0, -e, c, 0)]

    # On both sides of 0.0005, 0.0015, ...: wherever rounding would cut.
    for number, middle in enumerate((0.0, 0.0005, 0.001, 0.0015)):
        folder = tmp_path / str(number)
        apart = tuple(direction(middle + (-1) ** k * 1e-7) for k in range(6))
        write_series(folder, HU, ImageOrientationPatient=apart)
        np.testing.assert_array_equal(read_scan(folder).voxels, HU)


def test_a_copy_with_other_pixels_is_refused(write_series, tmp_path):
    files = write_series(tmp_path, HU)
    shutil.copy(files[2], tmp_path / "IM0003 (1)")
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, HU)
    edit(tmp_path / "IM0003 (1)", PixelData=HU[4].astype("<i2").tobytes())
    with pytest.raises(BadData, match="a second slice at the position of"):
        read_scan(tmp_path)


def test_odd_tags_print_no_warnings(write_series, tmp_path, recwarn, capsys):
    odd = {"SeriesDescription": "x" * 80, "SeriesNumber": 3, "AcquisitionNumber": 1}
    files = write_series(tmp_path, HU, uid="1.2.3", **odd)
    raw = files[0].read_bytes()
    files[0].write_bytes(raw.replace(b"Abdomen", b"Abd\xffmen"))
    recwarn.clear()  # those of writing such tags
    find_scans(tmp_path)
    read_scan(tmp_path)
    assert not recwarn.list and capsys.readouterr() == ("", "")
