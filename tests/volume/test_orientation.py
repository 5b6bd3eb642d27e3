"""Every axis order and direction a file can have, to canonical and exactly back."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes
from scipy.spatial.transform import Rotation

from attunet_jax import volume

# The canonical volume all files of this test are pictures of: 4 slices, 3 rows, 5
# columns; the first voxel lies lowest, most to the front (+y) and to the right (+x).
SPACING_MM = np.array([2.5, 0.75, 1.25])
TRUTH = np.random.default_rng(3).integers(0, 250, (4, 3, 5)).astype(np.uint8)
FIRST_XYZ = np.array([41.0, -12.5, 300.25])
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def file_of(order, signs):
    """Array and affine of a file whose axis i runs along world axis order[i]."""
    size_xyz = dict(zip((2, 1, 0), TRUTH.shape, strict=True))
    step_xyz = dict(zip((2, 1, 0), SPACING_MM, strict=True))
    low = FIRST_XYZ - [step_xyz[0] * 4, step_xyz[1] * 2, 0]  # the box's lowest corner
    high = FIRST_XYZ + [0, 0, step_xyz[2] * 3]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * step_xyz[world]
        affine[world, 3] = low[world] if sign > 0 else high[world]
    array = np.zeros([size_xyz[world] for world in order], np.uint8)
    for index in np.ndindex(array.shape):
        x, y, z = (affine @ [*index, 1])[:3]
        d = (z - FIRST_XYZ[2]) / SPACING_MM[0]
        h = (FIRST_XYZ[1] - y) / SPACING_MM[1]
        w = (FIRST_XYZ[0] - x) / SPACING_MM[2]
        array[index] = TRUTH[round(d), round(h), round(w)]
    return array, affine


def test_a_file_of_any_orientation_reads_canonical_and_writes_back(tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    for order, signs in ORIENTATIONS:
        array, affine = file_of(order, signs)
        nibabel.Nifti1Image(array, affine).to_filename(tmp_path / "scan.nii")
        image = volume.read_image(tmp_path / "scan.nii")
        np.testing.assert_array_equal(image.voxels, TRUTH)
        np.testing.assert_allclose(image.spacing_mm, SPACING_MM)
        np.testing.assert_allclose(image.affine[:3, 3], FIRST_XYZ)
        assert "".join(aff2axcodes(image.affine)) == "SPL"
        assert image.grid.shape == array.shape
        assert volume.axis_codes(image.grid) == "".join(aff2axcodes(affine))

        volume.write_on_grid(tmp_path / "labels.nii.gz", TRUTH, image.grid)
        written = nibabel.Nifti1Image.from_filename(tmp_path / "labels.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), array)
        np.testing.assert_allclose(np.asarray(written.affine), affine, atol=1e-4)
        assert written.get_data_dtype() == np.uint8


def test_an_oblique_file_goes_to_the_closest_axes_and_keeps_its_rotation():
    for (order, signs), degrees in product(
        ORIENTATIONS[::5], [(4, -3, 2), (20, 10, -15)]
    ):
        array, affine = file_of(order, signs)
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        moved, moved_affine = volume.canonical(array, turn @ affine)
        np.testing.assert_array_equal(moved, TRUTH)
        straight = volume.canonical(array, affine)[1]
        np.testing.assert_allclose(moved_affine, turn @ straight, atol=1e-9)
        grid = volume.Grid(array.shape, turn @ affine)
        np.testing.assert_array_equal(volume.from_canonical(moved, grid), array)


def test_any_rotation_keeps_every_voxel_in_its_place_in_the_world():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(rng=rng).as_matrix() * rng.uniform(0.5, 4, 3)
        affine[:3, 3] = rng.normal(size=3) * 100
        array = rng.permutation(60).reshape(3, 4, 5)
        moved, moved_affine = volume.canonical(array, affine)
        for index in np.ndindex(moved.shape):
            source = [int(i[0]) for i in np.nonzero(array == moved[index])]
            np.testing.assert_allclose(
                moved_affine @ [*index, 1], affine @ [*source, 1], atol=1e-9
            )
        back = volume.from_canonical(moved, volume.Grid((3, 4, 5), affine))
        np.testing.assert_array_equal(back, array)


def test_an_array_that_is_not_on_the_grid_is_refused():
    grid = volume.Grid((5, 3, 4), np.diag([1.0, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"\(4, 5, 3\).*\(4, 3, 5\)"):
        volume.from_canonical(np.zeros((4, 5, 3)), grid)


def test_an_array_becomes_a_volume_of_its_spacing_in_canonical_order():
    made = volume.Volume.of_array(TRUTH, SPACING_MM)
    np.testing.assert_array_equal(made.voxels, TRUTH)
    np.testing.assert_allclose(made.spacing_mm, SPACING_MM)
    assert "".join(aff2axcodes(made.affine)) == "SPL"
    back = volume.from_canonical(made.voxels, made.grid)
    np.testing.assert_array_equal(back, TRUTH)
