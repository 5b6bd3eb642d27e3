"""Whole and sliding inference against what they must equal on simple functions."""

import itertools

import numpy as np
import pytest

from attunet_jax.predict import sliding_window


def two_classes(image):
    """A voxelwise stand-in for a network: whatever the window, the same answer."""
    p = 1 / (1 + np.exp(-image))
    return np.stack([1 - p, p]).astype(np.float32)


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(21, 30, 17)).astype(np.float32)


def test_whole_volume_of_any_size_comes_back_in_its_own_size(image):
    seen = []

    def forward(padded):
        seen.append(padded.shape)
        return two_classes(padded)

    got = sliding_window.whole(forward, image, divisor=4)
    assert seen == [(24, 32, 24)]  # multiples of 8
    np.testing.assert_array_equal(got, two_classes(image))


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 32, 8), (32, 32, 32)])
def test_windows_of_a_voxelwise_function_equal_the_function(image, shape):
    got = sliding_window.sliding(
        two_classes, image, window_shape=shape, overlap=0.5, sigma=0.125
    )
    np.testing.assert_allclose(got, two_classes(image), rtol=1e-5)


@pytest.mark.parametrize(
    "size, window, overlap", [(21, 8, 0.5), (8, 8, 0.5), (50, 7, 0)]
)
def test_windows_cover_every_voxel_and_stay_inside(size, window, overlap):
    starts = sliding_window.window_starts((size,) * 3, (window,) * 3, overlap)
    covered = np.zeros((size,) * 3, bool)
    for d, h, w in starts:
        assert max(d, h, w) + window <= size
        covered[d : d + window, h : h + window, w : w + window] = True
    assert covered.all()
    axis = sorted({s[0] for s in starts})
    assert starts == list(itertools.product(axis, axis, axis))
    stride = max(int(window * (1 - overlap)), 1)
    assert all(b - a <= stride for a, b in itertools.pairwise(axis))


def test_the_middle_of_a_window_weighs_most():
    """Two windows disagree: each wins where its own middle is."""

    def by_window(window):
        value = window[0, 0, 0]  # the first voxel tells the windows apart
        return np.full((1, *window.shape), value, np.float32)

    line = np.arange(12, dtype=np.float32).reshape(12, 1, 1)
    got = sliding_window.sliding(
        by_window, line, window_shape=(8, 1, 1), overlap=0.5, sigma=0.125
    )[0, :, 0, 0]
    assert got[0] == 0 and got[-1] == 4
    # At voxel 4 the first window (0..7, middle 3.5) outweighs the second (4..11).
    near, far = np.exp(-0.5 * (0.5 / 1) ** 2), np.exp(-0.5 * (3.5 / 1) ** 2)
    assert got[4] == pytest.approx(
        (0 * near + 4 * max(far, 1e-3)) / (near + max(far, 1e-3))
    )
