"""Two grids: equal within a tolerance, or what sets them apart, in numbers."""

from dataclasses import replace

import numpy as np
import pytest

from attunet_jax.volume import (
    Grid,
    Volume,
    canonical,
    max_corner_distance_mm,
    same_geometry,
)

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 120], [0, 0, 5, 30], [0, 0, 0, 1.0]])


def volume_of(affine, shape=(9, 11, 6)):
    voxels, view = canonical(np.zeros(shape, np.uint8), np.asarray(affine))
    return Volume(voxels, view, Grid(shape, np.asarray(affine)), "scan.nii")


def moved(x=0.0, y=0.0, z=0.0):
    affine = AFFINE.copy()
    affine[:3, 3] += (x, y, z)
    return affine


def test_equal_grids_do_not_differ():
    assert same_geometry(volume_of(AFFINE), volume_of(AFFINE.copy()), 1e-9) is None


def test_the_order_of_axes_in_the_file_makes_no_difference():
    flipped = AFFINE @ [[1, 0, 0, 0], [0, -1, 0, 10], [0, 0, 1, 0], [0, 0, 0, 1]]
    turned = volume_of(flipped[:, [2, 0, 1, 3]], (6, 9, 11))
    assert same_geometry(volume_of(AFFINE), turned, 1e-9) is None


@pytest.mark.parametrize("tolerance_mm, differs", [(5.01, False), (4.99, True)])
def test_the_tolerance_is_the_largest_displacement_of_a_corner(tolerance_mm, differs):
    phrase = same_geometry(volume_of(AFFINE), volume_of(moved(x=3, y=4)), tolerance_mm)
    assert bool(phrase) == differs
    if phrase:
        assert "corners lie up to 5 mm apart (tolerance 4.99 mm)" in phrase
        assert "no flip" in phrase and "spacing" not in phrase


def test_another_spacing_is_named_and_counts_at_the_far_corner():
    wider = AFFINE.copy()
    wider[2, 2] = 5.1  # 5 steps of 0.1 mm more: 0.5 mm at the top
    phrase = same_geometry(volume_of(AFFINE), volume_of(wider), 0.4)
    assert phrase and "up to 0.5 mm apart" in phrase
    assert "spacing 5 x 0.8 x 0.8 against 5.1 x 0.8 x 0.8 mm" in phrase
    assert same_geometry(volume_of(AFFINE), volume_of(wider), 0.6) is None


def test_another_shape_is_given_in_voxels():
    phrase = same_geometry(volume_of(AFFINE), volume_of(AFFINE, (9, 11, 7)), 1)
    assert phrase == "6 x 11 x 9 against 7 x 11 x 9 voxels (D x H x W)"


def test_the_same_sizes_in_another_order_are_named():
    phrase = same_geometry(volume_of(AFFINE), volume_of(AFFINE, (11, 9, 6)), 1)
    assert phrase and phrase.startswith("6 x 11 x 9 against 6 x 9 x 11 voxels")
    assert "axes" in phrase


def test_dicom_signs_written_where_nifti_means_others_are_named():
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    phrase = same_geometry(volume_of(AFFINE), volume_of(lps), 0.1)
    assert phrase and "they would agree with world x, y of one affine flipped" in phrase


def test_a_file_axis_that_runs_the_other_way_is_named():
    other = AFFINE.copy()
    other[:, 1] *= -1
    phrase = same_geometry(volume_of(AFFINE), volume_of(other), 0.1)
    assert (
        phrase and "they would agree with file axis 1 of one affine flipped" in phrase
    )


def test_voxels_themselves_do_not_matter():
    a = volume_of(AFFINE)
    assert same_geometry(a, replace(a, voxels=a.voxels + 1, path="other"), 0.1) is None


def test_the_distance_is_that_of_the_farthest_corner_and_none_between_shapes():
    wider = AFFINE.copy()
    wider[2, 2] = 5.1
    a = volume_of(AFFINE)
    assert max_corner_distance_mm(a, volume_of(wider)) == pytest.approx(0.5)
    moved_by_5_mm = volume_of(moved(x=3, y=4))
    assert max_corner_distance_mm(a, moved_by_5_mm) == pytest.approx(5)
    assert max_corner_distance_mm(a, volume_of(AFFINE, (9, 11, 7))) is None
