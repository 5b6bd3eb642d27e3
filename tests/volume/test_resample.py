"""Another spacing: against scipy on the same points, and against hand calculation."""

import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.errors import BadData
from attunet_jax.volume import Grid, Volume, blur, resample

SHAPE = (7, 12, 9)
SPACINGS = [
    ((5, 0.8, 0.8), (2, 2, 2)),  # finer along D, coarser in the plane
    ((0.7, 0.9, 1.3), (3, 3, 3)),
    ((3, 3, 3), (0.9, 2.5, 3)),
    ((2, 2, 2), (2, 2, 2)),
    ((1, 1, 1), (100, 2, 0.5)),  # one slice is left
]


def make(voxels, spacing_mm, turned=False):
    affine = np.diag([0.0, 0, 0, 1])
    affine[[2, 1, 0], [0, 1, 2]] = np.array(spacing_mm) * [1, -1, -1]
    affine[:3, 3] = (50, -20, 400)
    if turned:
        c, s = np.cos(0.3), np.sin(0.3)
        affine = (
            np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
        )
    return Volume(voxels, affine, Grid(voxels.shape, affine), "scan.nii")


def random(dtype="f4", shape=SHAPE):
    rng = np.random.default_rng(1)
    return rng.uniform(-1000, 1000, shape).astype(dtype)


def points(new, old):
    """Indices of `old` where the voxels of `new` lie, by way of the world: [3, N]."""
    index = np.indices(new.voxels.shape).reshape(3, -1)
    world = new.affine @ np.vstack([index, np.ones(index.shape[1])])
    return (np.linalg.inv(old.affine) @ world)[:3]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("old_mm, new_mm", SPACINGS)
def test_linear_equals_scipy_at_the_same_points_of_the_world(old_mm, new_mm, turned):
    volume = make(random(), old_mm, turned)
    got = resample(volume, new_mm, order="linear")
    expected = ndimage.map_coordinates(
        volume.voxels.astype(float), points(got, volume), order=1, mode="nearest"
    )
    assert got.voxels.dtype == np.float32
    np.testing.assert_allclose(got.voxels.ravel(), expected, atol=3e-3)


@pytest.mark.parametrize("old_mm, new_mm", SPACINGS)
def test_int16_comes_back_as_int16_rounded_once_at_the_end(old_mm, new_mm):
    volume = make(random("i2"), old_mm)
    got = resample(volume, new_mm, order="linear")
    expected = ndimage.map_coordinates(
        volume.voxels.astype(float), points(got, volume), order=1, mode="nearest"
    )
    assert got.voxels.dtype == np.int16
    np.testing.assert_array_less(np.abs(got.voxels.ravel() - expected), 0.5 + 3e-3)


@pytest.mark.parametrize("old_mm, new_mm", SPACINGS)
def test_nearest_takes_a_nearest_voxel_and_invents_no_label(old_mm, new_mm):
    labels = np.random.default_rng(2).choice([0, 3, 117], SHAPE).astype(np.uint8)
    volume = make(labels, old_mm)
    got = resample(volume, new_mm, order="nearest")
    assert got.voxels.dtype == np.uint8
    assert set(np.unique(got.voxels)) <= {0, 3, 117}
    # Brute force: some voxel at the least distance along every axis has that label.
    last = np.array(SHAPE)[:, None] - 1
    where = np.clip(points(got, volume), 0, last)
    lower, upper = np.ceil(where - 0.501), np.floor(where + 0.501)
    lower, upper = np.clip([lower, upper], 0, last).astype(int)
    for label, low, high in zip(got.voxels.ravel(), lower.T, upper.T, strict=True):
        box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
        assert label in labels[box]


@pytest.mark.parametrize("old_mm, new_mm", SPACINGS)
def test_spacing_is_exact_and_the_centre_stays(old_mm, new_mm):
    volume = make(random(), old_mm, turned=True)
    got = resample(volume, new_mm, order="linear")
    np.testing.assert_allclose(got.spacing_mm, new_mm, rtol=1e-12)
    assert got.voxels.shape == tuple(
        max(1, round(n * a / b)) for n, a, b in zip(SHAPE, old_mm, new_mm, strict=True)
    )
    centres = [
        v.affine @ [*(np.array(v.voxels.shape) - 1) / 2, 1] for v in (volume, got)
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)
    assert got.grid is volume.grid and got.path == volume.path


def test_half_the_spacing_by_hand():
    """Two voxels 0 and 8 at 2 mm: at 1 mm they are read at -1/4, 1/4, 3/4, 5/4."""
    volume = make(np.array([0, 8], np.int16).reshape(1, 1, 2), (1, 1, 2))
    got = resample(volume, (1, 1, 1), order="linear").voxels
    np.testing.assert_array_equal(got, [[[0, 2, 6, 8]]])
    got = resample(volume, (1, 1, 1), order="nearest").voxels
    np.testing.assert_array_equal(got, [[[0, 0, 8, 8]]])


@pytest.mark.parametrize("order", ["linear", "nearest"])
def test_the_same_spacing_changes_no_bit(order):
    volume = make(random(), (0.7, 0.9, 1.3))
    got = resample(volume, volume.spacing_mm, order=order)
    np.testing.assert_array_equal(got.voxels, volume.voxels)
    np.testing.assert_allclose(got.affine, volume.affine, atol=1e-12)


def test_noise_in_the_last_bit_of_a_header_changes_no_voxel():
    """41 slices of 5 mm are 102.5 of 2 mm: the noise must not choose the shape."""
    labels = np.random.default_rng(0).integers(0, 9, (41, 6, 6)).astype(np.uint8)
    got = [
        resample(
            make(labels, (5 + noise, 1 + noise, 1 - noise)), (2, 2, 2), order="nearest"
        )
        for noise in (-4e-7, 0, 4e-7)
    ]
    np.testing.assert_array_equal(got[0].voxels, got[1].voxels)
    np.testing.assert_array_equal(got[2].voxels, got[1].voxels)


def test_a_spacing_that_would_need_absurd_memory_is_refused():
    volume = make(np.zeros((100, 100, 100), np.uint8), (90, 90, 90))
    with pytest.raises(BadData, match="^scan.nii: at 1 x 1 x 1 mm .* 90 x 90 x 90 mm"):
        resample(volume, (1, 1, 1), order="nearest")


def test_blocks_of_large_arrays_join_without_a_seam():
    voxels = np.random.default_rng(0).normal(size=(40, 130, 110)).astype(np.float32)
    volume = make(voxels, (2, 1, 1))
    got = resample(volume, (1.3, 1.7, 0.6), order="linear")
    expected = ndimage.map_coordinates(
        voxels.astype(float), points(got, volume), order=1, mode="nearest"
    )
    np.testing.assert_allclose(got.voxels.ravel(), expected, atol=1e-5)


def test_blur_spreads_a_point_as_a_gaussian_in_mm():
    voxels = np.zeros((21, 41, 41), np.int16)
    voxels[10, 20, 20] = 10000
    got = blur(make(voxels, (2, 1, 1)), 2.0)
    assert got.voxels.dtype == np.float32
    d, h, w = np.indices(voxels.shape) - np.array([10, 20, 20]).reshape(3, 1, 1, 1)
    r2_mm = (2 * d) ** 2 + h**2 + w**2
    expected = np.exp(-r2_mm / (2 * 2.0**2))
    expected *= 10000 / expected.sum()
    np.testing.assert_allclose(got.voxels, expected, atol=0.02 * expected.max())
    assert got.voxels.sum() == pytest.approx(10000, rel=1e-4)


def test_blur_of_nothing_changes_nothing_and_edges_are_repeated():
    volume = make(random("i2"), (1, 2, 3))
    np.testing.assert_array_equal(blur(volume, 0.0).voxels, volume.voxels)
    flat = make(np.full(SHAPE, -1000, np.int16), (1, 2, 3))
    np.testing.assert_allclose(blur(flat, 4.0).voxels, -1000, rtol=1e-5)
