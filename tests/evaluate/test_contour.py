"""The published 2-D contour distance, by hand and by brute force over pixels."""

import numpy as np
import pytest

from attunet_jax.evaluate.contours import contour_distance_mm, outer_contour


def square(start, side, slices=1, size=12):
    mask = np.zeros((slices, size, size), bool)
    mask[:, start : start + side, start : start + side] = True
    return mask


def test_two_pixels_are_as_far_apart_as_their_centres():
    a, b = np.zeros((2, 1, 9, 9), bool)
    a[0, 1, 1] = b[0, 4, 5] = True
    assert contour_distance_mm(a, b, (5, 1, 1)) == pytest.approx(5)
    # 3 rows of 2 mm, 4 columns of 0.5 mm.
    assert contour_distance_mm(a, b, (5, 2, 0.5)) == pytest.approx(np.hypot(6, 2))


def test_a_hole_and_the_inside_have_no_contour():
    ring = square(2, 7)[0]
    ring[4:6, 4:6] = False
    expected = square(2, 7)[0]
    expected[3:8, 3:8] = False
    np.testing.assert_array_equal(outer_contour(ring), expected)


def test_an_organ_cut_off_by_the_border_has_a_contour_there():
    np.testing.assert_array_equal(
        outer_contour(np.ones((3, 4), bool)),
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
    )


def test_slices_that_only_one_has_do_not_count():
    a = square(2, 5, slices=3)
    b = a.copy()
    b[2] = False  # a missed slice is passed over: that is why this flatters
    assert contour_distance_mm(a, b, (1, 1, 1)) == 0
    b[:] = False
    assert contour_distance_mm(a, b, (1, 1, 1)) is None


def test_the_distance_equals_brute_force_over_all_pairs_of_contour_pixels():
    rng = np.random.default_rng(0)
    truth = rng.random((4, 10, 11)) < 0.4
    prediction = rng.random((4, 10, 11)) < 0.4
    prediction[3] = False
    means = []
    for a, b in zip(truth[:3], prediction[:3], strict=True):
        points = [np.argwhere(outer_contour(m)) * (0.7, 1.3) for m in (a, b)]
        apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
        means.append((apart.min(0).mean() + apart.min(1).mean()) / 2)
    got = contour_distance_mm(truth, prediction, (3, 0.7, 1.3))
    assert got == pytest.approx(np.mean(means), rel=1e-12)
