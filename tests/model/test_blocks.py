"""The layers between two scales against SciPy and NumPy, and how they begin."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import NumpyNetwork, random_variables
from scipy import ndimage

from attunet_jax.model.blocks import (
    BatchNorm,
    Conv,
    Conv3x3x3,
    ConvBlock,
    PointwiseBlock,
)
from attunet_jax.model.convolution import choose_formulation

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (2, 4, 4, 6, 3)).astype(np.float32)


def init(module: Any, *inputs: Any) -> Any:
    return jax.jit(module.init, static_argnums=range(2, 1 + len(inputs)))(
        jax.random.key(0), *inputs
    )


FORMS = ("compiler", "matrix", choose_formulation("cpu", 1, "float32"))


@pytest.mark.parametrize("formulation", sorted(set(FORMS)))
def test_a_3x3x3_convolution_is_scipys_correlation_summed_over_channels(formulation):
    conv = Conv3x3x3(2, jnp.float32, formulation)
    variables: Any = {
        "params": {
            "kernel": RNG.normal(size=(3, 3, 3, 3, 2)).astype(np.float32),
            "bias": np.array([0.5, -2.0], np.float32),
        }
    }
    got: Any = conv.apply(variables, X)
    kernel = variables["params"]["kernel"].astype(float)
    for b, o in np.ndindex(2, 2):
        expected = variables["params"]["bias"][o] + sum(
            ndimage.correlate(X[b, ..., c].astype(float), k, mode="constant")
            for c, k in enumerate(np.moveaxis(kernel[..., o], -1, 0))
        )
        np.testing.assert_allclose(got[b, ..., o], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size, shape", [(1, (2, 4, 4, 6, 5)), (2, (2, 2, 2, 3, 5))])
def test_the_other_sizes_keep_or_halve_the_grid(size, shape):
    conv = Conv(5, size, jnp.float32)
    kernel = RNG.normal(size=(size, size, size, 3, 5)).astype(np.float32)
    bias = RNG.normal(size=5).astype(np.float32)
    got: Any = jax.jit(conv.apply)({"params": {"kernel": kernel, "bias": bias}}, X)
    assert got.shape == shape
    # The first voxel of the result sees the first block of the input only.
    block = X[0, :size, :size, :size]
    expected = (block[..., None] * kernel).sum((0, 1, 2, 3)) + bias
    np.testing.assert_allclose(got[0, 0, 0, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [
        Conv(2, 1, jnp.bfloat16),
        Conv3x3x3(2, jnp.bfloat16, "compiler"),
        Conv3x3x3(2, jnp.bfloat16, "compiler", lambda x: x),
    ],
    ids=["1x1x1", "3x3x3", "3x3x3 made again"],
)
def test_the_gradient_of_a_bias_is_summed_and_kept_in_float32(conv):
    x = jnp.ones((1, 7, 11, 13, 1), jnp.bfloat16)
    params: Any = init(conv, x)["params"]

    def total(params):
        return jnp.sum(conv.apply({"params": params}, x), dtype=jnp.float32)

    # 7 * 11 * 13 has no bfloat16: its neighbours are 1000 and 1004.
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(params)["bias"], 1001)


def test_without_bias_there_is_none():
    conv = Conv(5, 2, jnp.float32, use_bias=False)
    params: Any = jax.eval_shape(conv.init, jax.random.key(0), X)["params"]
    assert {k: v.shape for k, v in params.items()} == {"kernel": (2, 2, 2, 3, 5)}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_kernels_begin_normal_with_variance_2_over_fan_in_and_biases_uniform(size):
    x = jnp.zeros((1, 4, 4, 4, 64))
    conv = Conv(512, size, jnp.float32)
    if size == 3:
        conv = Conv3x3x3(512, jnp.float32, "compiler")
    params = init(conv, x)["params"]
    fan_in = 64 * size**3
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    deviation = np.sqrt(2 / fan_in)
    assert abs(kernel.mean()) < 0.03 * deviation
    assert abs(kernel.std() / deviation - 1) < 0.03
    assert np.abs(kernel).max() > 3 * deviation  # not cut off
    bound = 1 / np.sqrt(fan_in)
    assert 0.97 * bound < np.abs(bias).max() <= bound
    assert abs(bias.std() / (bound / np.sqrt(3)) - 1) < 0.1


def test_batch_norm_begins_near_1_and_at_0_without_having_seen_anything():
    norm = BatchNorm(jnp.float32)
    variables = init(norm, jnp.full((1, 1, 1, 1, 2000), 9), True)
    scale = np.asarray(variables["params"]["scale"])
    assert abs(scale.mean() - 1) < 0.002 and abs(scale.std() - 0.02) < 0.002
    np.testing.assert_array_equal(variables["params"]["bias"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)


NORM: dict[str, Any] = {
    "params": {
        "scale": np.array([1.0, 2.0, -1.0], np.float32),
        "bias": np.array([0.0, 1.0, 0.5], np.float32),
    },
    "batch_stats": {
        "mean": np.array([1.0, 0.0, -1.0], np.float32),
        "var": np.array([4.0, 1.0, 0.25], np.float32),
    },
}


def test_training_normalises_by_the_batch_and_stores_the_unbiased_variance():
    y: Any
    y, updates = BatchNorm(jnp.float32).apply(NORM, X, True, mutable=["batch_stats"])
    flat = X.reshape(-1, 3).astype(float)
    expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    expected = expected * [1, 2, -1] + [0, 1, 0.5]
    np.testing.assert_allclose(y.reshape(-1, 3), expected, rtol=0, atol=1e-5)
    stats: Any = updates["batch_stats"]
    mean = 0.9 * np.array([1, 0, -1]) + 0.1 * flat.mean(0)
    var = 0.9 * np.array([4, 1, 0.25]) + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-5)


def test_evaluation_normalises_by_what_is_stored():
    y: Any = BatchNorm(jnp.float32).apply(NORM, X, False)
    expected = (X - [1, 0, -1]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5)
    expected = expected * [1, 2, -1] + [0, 1, 0.5]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_a_mean_far_above_the_deviation_costs_no_digits():
    far = (X + 10_000).astype(np.float32)
    y: Any
    y, _ = BatchNorm(jnp.float32).apply(NORM, far, True, mutable=["batch_stats"])
    flat = far.reshape(-1, 3).astype(float)
    expected = (flat - flat.mean(0)) / flat.std(0) * [1, 2, -1] + [0, 1, 0.5]
    np.testing.assert_allclose(y.reshape(-1, 3), expected, rtol=0, atol=5e-3)


def test_a_single_voxel_becomes_the_bias_and_its_variance_is_zero():
    one = np.full((1, 1, 1, 1, 3), 5, np.float32)
    y: Any
    y, updates = BatchNorm(jnp.float32).apply(NORM, one, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [0, 1, 0.5])
    stats: Any = updates["batch_stats"]
    np.testing.assert_allclose(stats["var"], [3.6, 0.9, 0.225], rtol=1e-6)


def test_bfloat16_activations_are_counted_in_float32():
    # 4096 ones and as many 1.0078125s (the next bfloat16): the sum needs 14 bits.
    x = np.repeat([1.0, 1.0078125], 4096).reshape(1, 16, 16, 32, 1)
    norm = BatchNorm(jnp.bfloat16)
    variables: Any = init(norm, x, False)
    y: Any
    y, updates = norm.apply(
        variables, jnp.asarray(x, jnp.bfloat16), True, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    stats: Any = updates["batch_stats"]
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    np.testing.assert_allclose(stats["mean"], 0.1 * 1.00390625, rtol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_a_block_is_twice_convolution_norm_and_relu_in_that_order(train):
    block = ConvBlock(4, jnp.float32, "compiler")
    _check_against_numpy(block, train, "twice", lambda x: (x,))


@pytest.mark.parametrize("train", [False, True])
def test_a_pointwise_block_is_convolution_norm_and_relu(train):
    _check_against_numpy(PointwiseBlock(4, jnp.float32), train, "pointwise")


def _check_against_numpy(block: Any, train: bool, kind: str, given=lambda x: x):
    shapes = jax.eval_shape(lambda: init(block, given(jnp.asarray(X)), train))
    variables = random_variables(shapes, seed=1)
    numpy = NumpyNetwork({k: {"block": v} for k, v in variables.items()}, {}, train)
    expected = getattr(numpy, kind)("block", X.astype(float))
    narrow = jax.tree.map(lambda v: v.astype(np.float32), variables)
    got, _ = jax.jit(partial(block.apply, train=train, mutable=["batch_stats"]))(
        narrow, given(X)
    )
    assert (np.asarray(got) >= 0).all() and (np.asarray(got) == 0).any()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
