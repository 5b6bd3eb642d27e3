"""Upsampling against SciPy, JAX and np.interp; pooling by going through all blocks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.ops import resize

# One compilation each instead of one an operation.
upsample = jax.jit(resize.upsample, static_argnames=("factor", "align_corners"))
max_pool_2x2x2 = jax.jit(resize.max_pool_2x2x2)


def volume(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "shape, factor",
    [
        ((2, 3, 4, 5, 2), 2),
        ((1, 2, 1, 6, 3), 3),
        ((1, 2, 1, 6, 3), 4),
        ((2, 3, 4, 5, 2), 8),
    ],
    ids=str,
)
def test_half_pixel_upsampling_equals_jax_image_resize(shape, factor):
    x = volume(shape)
    batch, *size, channels = shape
    large = (batch, *(n * factor for n in size), channels)
    expected: Any = jax.jit(partial(jax.image.resize, shape=large, method="linear"))(x)
    got = upsample(x, factor=factor, align_corners=False)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_both_rules_equal_scipy_zoom_on_its_two_kinds_of_grid(align_corners):
    x = volume((1, 3, 4, 5, 1))
    got = upsample(x, factor=4, align_corners=align_corners)
    expected: Any = ndimage.zoom(
        x[0, ..., 0].astype(float),
        4,
        order=1,
        mode="nearest",
        grid_mode=not align_corners,
    )
    np.testing.assert_allclose(got[0, ..., 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis, factor", [(1, 2), (2, 3), (3, 8)])
def test_aligned_corners_equal_interpolation_between_the_outermost_centres(
    axis, factor
):
    shape = [1, 1, 1, 1, 1]
    shape[axis] = 5
    line = volume(5)
    at = np.linspace(0, 4, 5 * factor)
    got = upsample(line.reshape(shape), factor=factor, align_corners=True)
    expected = np.interp(at, np.arange(5), line)
    along = np.moveaxis(np.asarray(got), axis, -1)[..., 0, 0, 0, :].ravel()
    np.testing.assert_allclose(along, expected, rtol=0, atol=1e-6)


def test_the_two_rules_on_the_line_0_4_by_hand():
    line = jnp.array([0.0, 4.0]).reshape(1, 1, 1, 2, 1)
    half_pixel = upsample(line, factor=2, align_corners=False)[0, 0, 0, :, 0]
    np.testing.assert_allclose(half_pixel, [0, 1, 3, 4], atol=1e-6)
    aligned = upsample(line, factor=2, align_corners=True)[0, 0, 0, :, 0]
    np.testing.assert_allclose(aligned, [0, 4 / 3, 8 / 3, 4], atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_single_voxel_becomes_a_constant_and_factor_1_changes_nothing(align_corners):
    x = jnp.full((1, 1, 1, 1, 2), 3.5)
    np.testing.assert_array_equal(
        upsample(x, factor=4, align_corners=align_corners), 3.5
    )
    x = jnp.asarray(volume((1, 2, 3, 4, 1)))
    np.testing.assert_array_equal(upsample(x, factor=1, align_corners=align_corners), x)


@pytest.mark.parametrize("align_corners", [False, True])
def test_bfloat16_stays_bfloat16(align_corners):
    x = jnp.ones((1, 2, 2, 2, 1), jnp.bfloat16)
    assert upsample(x, factor=2, align_corners=align_corners).dtype == jnp.bfloat16
    assert max_pool_2x2x2(x).dtype == jnp.bfloat16


def test_bfloat16_is_rounded_once_after_each_axis():
    x = jnp.asarray(volume((1, 3, 4, 5, 2)), jnp.bfloat16)
    got = upsample(x, factor=2, align_corners=False)
    whole = ndimage.zoom(
        np.asarray(x[0], float),
        (2, 2, 2, 1),
        order=1,
        mode="nearest",
        grid_mode=True,
    )
    # Half a unit of the last of 8 bits, at most 2^-9 of the value, for each axis; the
    # later axes average, and let no earlier one grow.
    largest = np.abs(np.asarray(x, float)).max()
    error = np.abs(np.asarray(got[0], float) - whole)
    assert 0 < error.max() <= 3 * 2**-9 * largest


def brute_force_pool(x):
    """Values, and for each block the index of its largest voxel."""
    batch, depth, height, width, channels = x.shape
    values = np.empty((batch, depth // 2, height // 2, width // 2, channels), x.dtype)
    winners = {}
    for place in np.ndindex(values.shape):
        b, d, h, w, c = place
        block = {
            (b, 2 * d + i, 2 * h + j, 2 * w + k, c): x[
                b, 2 * d + i, 2 * h + j, 2 * w + k, c
            ]
            for i, j, k in np.ndindex(2, 2, 2)
        }
        winners[place] = max(block, key=lambda index, block=block: block[index])
        values[place] = block[winners[place]]
    return values, winners


@pytest.mark.parametrize("shape", [(2, 4, 6, 2, 3), (1, 5, 3, 7, 2)], ids=str)
def test_pooling_takes_the_largest_of_each_block_and_leaves_the_odd_rest(shape):
    x = volume(shape)
    got = max_pool_2x2x2(x)
    np.testing.assert_array_equal(got, brute_force_pool(x)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_pooling_goes_whole_to_the_largest_voxel(dtype):
    # Distinct values that bfloat16 holds exactly.
    rng = np.random.default_rng(1)
    x = rng.permutation(2 * 5 * 4 * 6).reshape(1, 5, 4, 6, 2).astype(np.float32) - 120
    weights = rng.integers(1, 9, (1, 2, 2, 3, 2)).astype(np.float32)
    expected = np.zeros_like(x)
    for place, index in brute_force_pool(x)[1].items():
        expected[index] = weights[place]

    def total(x):
        return (max_pool_2x2x2(x) * weights.astype(dtype)).sum()

    got = jax.jit(jax.grad(total))(jnp.asarray(x, dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.float32), expected)


def test_of_equal_voxels_the_first_gets_the_gradient_as_in_pytorch():
    x = jnp.ones((1, 2, 2, 2, 1))
    got = jax.jit(jax.grad(lambda x: 3 * max_pool_2x2x2(x).sum()))(x)
    assert np.asarray(got).ravel().tolist() == [3, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("level", [0, 3])
def test_pooling_a_computed_volume_has_the_same_gradient_at_any_optimisation(level):
    # The compiler may compute the volume twice with two roundings; a gradient that
    # asks which voxel equals the maximum then finds none.
    x, weights = volume((1, 8, 8, 8, 4)), volume((1, 4, 4, 4, 4), seed=1)
    scale = volume((4,), seed=2)

    def normalised(x, scale):
        mean = x.mean((0, 1, 2, 3))
        var = jnp.square(x - mean).mean((0, 1, 2, 3))
        return jax.nn.relu((x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + 0.1)

    def total(scale):
        return (max_pool_2x2x2(normalised(x, scale)) * weights).sum()

    options: Any = {"xla_backend_optimization_level": level}
    compiled = jax.jit(jax.grad(total)).lower(scale).compile(compiler_options=options)

    # d relu(scale u + 0.1) / d scale = u where it is positive.
    unit = (x - x.mean((0, 1, 2, 3))) / np.sqrt(x.var((0, 1, 2, 3)) + 1e-5)
    y = np.maximum(unit * scale + 0.1, 0)
    expected = np.zeros(4)
    for place, index in brute_force_pool(y)[1].items():
        expected[index[-1]] += weights[place] * unit[index] * (y[index] > 0)
    np.testing.assert_allclose(compiled(scale), expected, rtol=1e-4)
