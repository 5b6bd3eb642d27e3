"""DICOM series, written here and a real one, compared with dcm2niix and by hand."""

import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import gdcm
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from attunet_jax.volume import canonical, max_voxels, read_scan, write_on_grid
from attunet_jax.volume.dicom.read import read_dicom

HU = np.random.default_rng(0).integers(-1024, 3000, (6, 7, 5)).astype(np.int16)
# World mm, RAS+, of voxel (slice, row, column) of the usual series by hand: columns run
# to the left (-x) by 0.5, rows to the back (-y) by 0.75, slices up by 2.5.
AFFINE = [[0, 0, -0.5, 30], [0, -0.75, 0, 40], [2.5, 0, 0, 50], [0, 0, 0, 1]]


def dcm2niix(folder: Path, output: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in file order and affine that dcm2niix makes of a series."""
    program = Path(sys.executable).with_name("dcm2niix")
    output.mkdir(exist_ok=True)
    words = [program, "-b", "n", "-z", "n", "-f", "scan", "-o", output, folder]
    subprocess.run(words, check=True, capture_output=True)
    (written,) = output.glob("*.nii")
    image = nib.Nifti1Image.from_filename(written)
    return np.asanyarray(image.dataobj), np.asarray(image.affine)


def test_voxels_and_places_are_those_of_the_hand(write_series, tmp_path):
    write_series(tmp_path / "s", HU)
    volume = read_dicom(tmp_path / "s")
    assert volume.voxels.dtype == np.int16 and volume.path == str(tmp_path / "s")
    np.testing.assert_array_equal(volume.voxels, HU)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.75, 0.5))


def test_the_order_of_file_names_and_instance_numbers_means_nothing(
    write_series, tmp_path
):
    files = write_series(tmp_path, HU, InstanceNumber=(3, 1, 6, 2, 5, 4))
    for number, file in zip((4, 0, 5, 2, 1, 3), files, strict=True):
        file.rename(tmp_path / f"{number}.dcm")
    np.testing.assert_array_equal(read_dicom(tmp_path).voxels, HU)


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(write_series, tmp_path):
    slopes, intercepts = (1, 2, 1, 1, 4, 1), (-1024, 0, 10, -5, 0, 1)
    tags = {"RescaleSlope": slopes, "RescaleIntercept": intercepts}
    write_series(tmp_path, HU, intercept=0, **tags)
    by_hand = HU.astype(int) * np.reshape(slopes, (6, 1, 1))
    by_hand += np.reshape(intercepts, (6, 1, 1))
    volume = read_dicom(tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, by_hand)


@pytest.mark.parametrize("slope, intercept", [(0.5, 0.25), (40, 0)])
def test_fractions_and_great_values_are_float32(
    write_series, tmp_path, slope, intercept
):
    write_series(
        tmp_path, HU, intercept=0, RescaleSlope=slope, RescaleIntercept=intercept
    )
    volume = read_dicom(tmp_path)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, HU * np.float32(slope) + intercept)


def test_unsigned_twelve_bits_are_read(write_series, tmp_path):
    write_series(tmp_path, HU, PixelRepresentation=0, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_dicom(tmp_path).voxels, HU)


DIRECTIONS = [
    (*a, *b)
    for x, y in permutations(np.eye(3, dtype=int).tolist(), 2)
    for a, b in [(x, y), ([-n for n in x], y)]
] + [(0.96, 0.28, 0.0, -0.28, 0.96, 0.0), (0.8, 0, 0.6, 0, 1, 0)]


@pytest.mark.parametrize("orientation", DIRECTIONS, ids=str)
def test_any_orientation_is_as_dcm2niix_has_it(write_series, tmp_path, orientation):
    write_series(tmp_path / "s", HU, orientation=tuple(orientation))
    converted, affine = dcm2niix(tmp_path / "s", tmp_path / "out")
    volume = read_dicom(tmp_path / "s")
    voxels, view = canonical(converted, affine)
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, view, atol=1e-4)


def test_a_label_map_is_written_on_the_grid_that_dcm2niix_writes(
    write_series, tmp_path
):
    write_series(tmp_path / "s", HU)
    converted, affine = dcm2niix(tmp_path / "s", tmp_path / "out")
    volume = read_scan(tmp_path / "s")
    labels = (volume.voxels > 1000).astype(np.uint8)
    write_on_grid(tmp_path / "labels.nii", labels, volume.grid)
    written = nib.Nifti1Image.from_filename(tmp_path / "labels.nii")
    np.testing.assert_allclose(np.asarray(written.affine), affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), converted > 1000)


@pytest.mark.parametrize("turn", [0, 10], ids=str)
def test_a_label_map_of_a_series_lies_on_it_in_itk(write_series, tmp_path, turn):
    c, s = round(np.cos(np.radians(turn)), 4), round(np.sin(np.radians(turn)), 4)
    files = write_series(tmp_path / "s", HU, orientation=(c, s, 0, -s, c, 0))
    series = sitk.ReadImage([str(file) for file in files])
    volume = read_scan(tmp_path / "s")
    write_on_grid(tmp_path / "a.nii", np.zeros(HU.shape, np.uint8), volume.grid)
    made = sitk.ReadImage(str(tmp_path / "a.nii"))
    assert made.GetSize() == series.GetSize() == (5, 7, 6)
    for column, row, index in np.ndindex(5, 7, 6):
        np.testing.assert_allclose(
            made.TransformIndexToPhysicalPoint((column, 6 - row, index)),
            series.TransformIndexToPhysicalPoint((column, row, index)),
            atol=0.01,
        )


def test_slices_that_differ_by_rounding_are_one_scan(write_series, tmp_path):
    # 0.0005 lies between two steps of 0.001, and each slice rounds in its own way.
    turn, digits = 0.0005, (7, 6, 5, 4, 9, 8)
    cosines = tuple(
        [round(v, n) for v in (1 - turn**2 / 2, turn, 0, -turn, 1 - turn**2 / 2, 0)]
        for n in digits
    )
    spacings = tuple([round(0.703125, n), round(0.5 + 1e-9, n)] for n in digits)
    places = tuple([-30 + 10.0**-n, -40, 50 + 2.5 * i] for i, n in enumerate(digits))
    tags = {"ImageOrientationPatient": cosines, "PixelSpacing": spacings}
    write_series(tmp_path, HU, ImagePositionPatient=places, **tags)
    volume = read_dicom(tmp_path)
    by_hand = np.array(AFFINE)
    by_hand[:2, 1:3] = [[turn * 0.703125, -0.5], [-0.703125, -turn * 0.5]]
    np.testing.assert_allclose(volume.affine, by_hand, atol=1e-3)
    np.testing.assert_array_equal(volume.voxels, HU)


def test_cosines_of_three_digits_become_axes_at_right_angles(write_series, tmp_path):
    c, s = round(np.cos(0.3), 3), round(np.sin(0.3), 3)
    assert abs(c * c + s * s - 1) > 1e-4
    write_series(tmp_path, HU, orientation=(c, 0, s, 0, 1, 0))
    axes = read_dicom(tmp_path).affine[:3, :3]
    np.testing.assert_allclose(
        np.linalg.norm(axes, axis=0), (2.5, 0.75, 0.5), rtol=1e-3
    )
    axes = axes / np.linalg.norm(axes, axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


def test_a_real_series_is_as_dcm2niix_has_it(shared, tmp_path):
    folder = shared / "data" / "ct" / "totalsegmentator_example_dicom"
    converted, affine = dcm2niix(folder, tmp_path / "out")
    volume = read_dicom(folder)
    voxels, view = canonical(converted, affine)
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, view, atol=1e-4)
    assert volume.grid.shape == converted.shape
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000"]
)
def test_compressed_slices_are_read(write_series, tmp_path, syntax):
    smooth = np.add.outer(np.arange(4) * 10, np.add.outer(np.arange(32), np.arange(32)))
    kind = getattr(gdcm.TransferSyntax, syntax.replace("JPEG2000", "JPEG2000Lossless"))
    for path in write_series(tmp_path, smooth):
        reader, change, writer = (
            gdcm.ImageReader(),
            gdcm.ImageChangeTransferSyntax(),
            gdcm.ImageWriter(),
        )
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(kind))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_dicom(tmp_path).voxels, smooth)


def test_files_of_other_kinds_in_the_folder_are_skipped(write_series, tmp_path):
    write_series(tmp_path, HU)
    write_series(tmp_path, HU[:1], name="scout", ImageType=["ORIGINAL", "LOCALIZER"])
    write_series(
        tmp_path, HU[:1], name="screen", SOPClassUID="1.2.840.10008.5.1.4.1.1.7"
    )
    write_series(tmp_path, HU[:2], name="pet{}", Modality="PT", uid="1.2.3")
    (tmp_path / "readme.txt").write_text("no DICOM file")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "IM0001").read_bytes())
    (tmp_path / "._IM0001.dcm").write_bytes(b"macOS")
    (tmp_path / "folder").mkdir()
    np.testing.assert_array_equal(read_dicom(tmp_path).voxels, HU)


def test_one_of_several_series_is_read_when_it_is_asked_for(write_series, tmp_path):
    write_series(tmp_path, HU, name="a{}", uid="1.2.3")
    write_series(tmp_path, HU[::-1], name="b{}", uid="1.2.4")
    for uid, expected in (("1.2.3", HU), ("1.2.4", HU[::-1])):
        np.testing.assert_array_equal(read_scan(tmp_path, uid).voxels, expected)


def test_files_without_a_header_of_their_own_are_read(write_series, tmp_path):
    for path in write_series(tmp_path, HU, name="{}.dcm"):
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset({tag: data[tag] for tag in data.keys()})
        bare.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_dicom(tmp_path).voxels, HU)


def test_a_copy_of_a_folder_elsewhere_is_the_same_scan(write_series, tmp_path):
    write_series(tmp_path / "s", HU)
    shutil.copytree(tmp_path / "s", tmp_path / "Größe 1")
    copied = read_dicom(tmp_path / "Größe 1")
    np.testing.assert_array_equal(copied.voxels, HU)


def test_the_size_of_a_series_is_bounded_by_one_header(write_series, tmp_path):
    write_series(tmp_path, HU)
    assert max_voxels(tmp_path) == 6 * 7 * 5
