"""Real scans of two sources: read as nibabel reads them, written on their own grid."""

import nibabel
import numpy as np
import pytest

from attunet_jax import volume

FILES = [
    "crlm1004.nii.gz",
    "totalsegmentator_example.nii.gz",
    "totalsegmentator_example_labels.nii.gz",
]


@pytest.mark.parametrize("name", FILES)
def test_a_real_scan_keeps_shape_affine_and_voxels(shared, tmp_path, name):
    path = shared / "data" / "ct" / name
    truth = nibabel.Nifti1Image.from_filename(path)
    stored = np.asarray(truth.dataobj)
    read = volume.read_labels if "labels" in name else volume.read_image
    scan = read(path)
    assert scan.grid.shape == truth.shape
    np.testing.assert_array_equal(scan.grid.affine, truth.affine)
    np.testing.assert_array_equal(volume.from_canonical(scan.voxels, scan.grid), stored)
    bone = scan.voxels if "labels" in name else (scan.voxels > 200).astype(np.uint8)
    volume.write_on_grid(tmp_path / "map.nii.gz", bone, scan.grid)
    written = nibabel.Nifti1Image.from_filename(tmp_path / "map.nii.gz")
    assert written.shape == truth.shape
    affine = np.asarray(truth.affine)
    np.testing.assert_allclose(np.asarray(written.affine), affine, atol=1e-4)
    expected = stored if "labels" in name else stored > 200
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)


def test_a_real_pair_shares_its_grid_and_comes_back_from_2_mm(shared):
    folder = shared / "data" / "ct"
    image = volume.read_image(folder / "totalsegmentator_example.nii.gz")
    labels = volume.read_labels(folder / "totalsegmentator_example_labels.nii.gz")
    assert image.voxels.dtype == np.int16 and labels.voxels.dtype == np.uint8
    assert volume.same_geometry(image, labels, 0.01) is None
    small = volume.resample(labels, (2, 2, 2), order="nearest")
    np.testing.assert_allclose(small.spacing_mm, 2)
    back = volume.onto_grid(small.voxels, small.affine, labels.grid, order="nearest")
    spleen, again = labels.voxels == 1, back == 1
    dice = 2 * (spleen & again).sum() / (spleen.sum() + again.sum())
    assert dice == 1  # finer than the scan: every voxel finds itself
