"""Values outside the scale of CT: padding by tag or by value, metal, and what stays."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from attunet_jax.volume import Volume, as_ct, read_scan

# Feet to head, front to back, right to left: rows of the file go as DICOM's.
HU = np.random.default_rng(3).integers(-900, 900, (3, 12, 10)).astype(np.int16)
CORNER = np.zeros(HU.shape, bool)
CORNER[:, :3, :4] = True
CORNER[1:, 9:, 8:] = True


def padded_with(value: int) -> np.ndarray:
    return np.where(CORNER, value, HU)


@pytest.mark.parametrize(
    "hu, tags",
    [
        (3000, {"PixelPaddingValue": 3000 + 1024}),
        (400, {"PixelPaddingValue": 400 + 1024}),
        (-2000, {"PixelPaddingValue": -2000 + 1024}),
        (2050, {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3100}),
        (2050, {"PixelPaddingValue": 3100, "PixelPaddingRangeLimit": 3000}),
        (-3024, {}),  # what lies below air needs no tag
    ],
)
def test_padding_becomes_air_and_nothing_else_does(write_series, tmp_path, hu, tags):
    write_series(tmp_path, padded_with(hu), **tags)
    scan = read_scan(tmp_path)
    # Read as it is stored: a run from before padding was known takes it so.
    np.testing.assert_array_equal(scan.voxels, padded_with(hu))
    expected = padded_with(-1024)
    np.testing.assert_array_equal(as_ct(scan).voxels, expected)
    np.testing.assert_array_equal(scan.voxels, padded_with(hu))
    changed = as_ct(scan, in_place=True)
    assert changed.voxels is scan.voxels and changed.padding is None
    np.testing.assert_array_equal(scan.voxels, expected)


def test_a_padding_value_is_read_in_the_sign_of_the_pixels(write_series, tmp_path):
    """Scanners write it unsigned beside signed pixels: 65036 is -500."""
    for path in write_series(tmp_path, padded_with(-500), intercept=0):
        data = pydicom.dcmread(path)
        data.add_new("PixelPaddingValue", "US", 2**16 - 500)
        data.save_as(path)
    expected = padded_with(-1024)
    np.testing.assert_array_equal(as_ct(read_scan(tmp_path)).voxels, expected)


def test_a_padding_value_that_occurs_in_the_body_is_left_there(write_series, tmp_path):
    image = padded_with(0)
    image[:, 5:7, 5:7] = 0  # water, away from the edge
    write_series(tmp_path, image, PixelPaddingValue=1024)
    expected = np.where(CORNER, -1024, image)
    np.testing.assert_array_equal(as_ct(read_scan(tmp_path)).voxels, expected)


def test_a_padding_tag_that_is_no_number_changes_nothing(write_series, tmp_path):
    for name, value in (("none", None), ("some", [1, 2])):
        write_series(tmp_path / name, HU, PixelPaddingValue=value)
        scan = as_ct(read_scan(tmp_path / name))
        np.testing.assert_array_equal(scan.voxels, HU)


def test_nifti_below_air_and_metal_are_clipped(tmp_path):
    image = padded_with(-3024)
    image[1, 6, 5] = 30000
    expected = np.where(CORNER, -1024, HU)
    expected[1, 6, 5] = 3071
    for dtype in (np.int16, np.float32):
        path = tmp_path / f"{np.dtype(dtype).name}.nii"
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(image.T.astype(dtype), affine), path)  # pyright: ignore
        np.testing.assert_array_equal(as_ct(read_scan(path)).voxels, expected)


def test_an_array_of_the_users_own_is_never_changed():
    image = padded_with(-3024).astype(np.int16)
    before = image.copy()
    scan = Volume.of_array(image, (1, 1, 1))
    assert as_ct(scan).voxels.min() == -1024
    np.testing.assert_array_equal(image, before)
