"""The plain convolutions against SciPy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.ops.conv import (
    conv3x3x3,
    conv3x3x3_of_concatenation,
    conv_1x1x1,
    conv_2x2x2_stride_2,
)


def test_a_3x3x3_convolution_whole_or_in_parts_is_scipys_summed_over_channels():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 5, 6, 3))
    kernel = rng.normal(size=(3, 3, 3, 3, 2))
    with jax.enable_x64(True):
        got = np.asarray(conv3x3x3(jnp.asarray(x), jnp.asarray(kernel)))
        parts = [jnp.asarray(x[..., :1]), jnp.asarray(x[..., 1:])]
        apart = np.asarray(conv3x3x3_of_concatenation(parts, jnp.asarray(kernel)))
    for b, o in np.ndindex(2, 2):
        expected = sum(
            ndimage.correlate(x[b, ..., c], kernel[..., c, o], mode="constant")
            for c in range(3)
        )
        np.testing.assert_allclose(got[b, ..., o], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(apart[b, ..., o], expected, rtol=0, atol=1e-12)


def test_a_1x1x1_convolution_multiplies_every_voxel_by_one_matrix():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4, 5, 3)).astype(np.float32)
    kernel = rng.normal(size=(1, 1, 1, 3, 2)).astype(np.float32)
    got = jax.jit(conv_1x1x1)(x, kernel)
    np.testing.assert_allclose(got, x @ kernel[0, 0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 2, 6), (5, 3, 7)], ids=str)
def test_a_2x2x2_convolution_sums_each_block_and_leaves_the_odd_rest(size):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(2, 2, 2, 3, 4)).astype(np.float32)
    got = jax.jit(conv_2x2x2_stride_2)(x, kernel)
    assert got.shape == (2, *(n // 2 for n in size), 4)
    for b, d, h, w in np.ndindex(got.shape[:4]):
        block = x[b, 2 * d : 2 * d + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        expected = np.einsum("xyzc,xyzco->o", block, kernel)
        np.testing.assert_allclose(got[b, d, h, w], expected, rtol=0, atol=1e-5)
