"""The layers between two scales against SciPy and NumPy, and how they begin."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import NumpyNetwork, random_variables

from attunet_jax.model.layers import Conv, ConvBlock, PointwiseBlock

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (2, 4, 4, 6, 3)).astype(np.float32)


def init(module: Any, *inputs: Any, method: str = "__call__") -> Any:
    initialise = partial(module.init, method=method)
    return jax.jit(initialise, static_argnums=range(2, 1 + len(inputs)))(
        jax.random.key(0), *inputs
    )


def test_a_3x3x3_convolution_keeps_the_grid_and_leaves_its_bias_to_the_norm():
    conv = Conv(2, 3, jnp.float32, defer_bias=True)
    kernel = RNG.normal(size=(3, 3, 3, 3, 2)).astype(np.float32)
    bias = np.array([0.5, -2.0], np.float32)
    got: Any = conv.apply({"params": {"kernel": kernel, "bias": bias}}, X)
    np.testing.assert_array_equal(got.bias, bias)
    # The second voxel along each axis sees the first block whole.
    block = X[0, :3, :3, :3]
    expected = (block[..., None] * kernel).sum((0, 1, 2, 3))
    np.testing.assert_allclose(got.volume[0, 1, 1, 1], expected, rtol=1e-5, atol=1e-4)


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


def test_the_gradient_of_a_bias_is_summed_and_kept_in_float32():
    conv = Conv(2, 1, jnp.bfloat16)
    x = jnp.ones((1, 7, 11, 13, 1), jnp.bfloat16)
    params: Any = init(conv, x)["params"]

    def total(params):
        y: Any = conv.apply({"params": params}, x)
        return jnp.sum(y, dtype=jnp.float32)

    # 7 * 11 * 13 has no bfloat16: its neighbours are 1000 and 1004.
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(params)["bias"], 1001)


def test_without_bias_there_is_none():
    conv = Conv(5, 2, jnp.float32, use_bias=False)
    params: Any = jax.eval_shape(conv.init, jax.random.key(0), X)["params"]
    assert {k: v.shape for k, v in params.items()} == {"kernel": (2, 2, 2, 3, 5)}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_kernels_begin_normal_with_variance_2_over_fan_in_and_biases_uniform(size):
    x = jnp.zeros((1, 4, 4, 4, 64))
    params = init(Conv(512, size, jnp.float32), x)["params"]
    fan_in = 64 * size**3
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    deviation = np.sqrt(2 / fan_in)
    assert abs(kernel.mean()) < 0.03 * deviation
    assert abs(kernel.std() / deviation - 1) < 0.03
    assert np.abs(kernel).max() > 3 * deviation  # not cut off
    bound = 1 / np.sqrt(fan_in)
    assert 0.97 * bound < np.abs(bias).max() <= bound
    assert abs(bias.std() / (bound / np.sqrt(3)) - 1) < 0.1


@pytest.mark.parametrize(
    "convolution, train",
    [("compiler", False), ("compiler", True), ("channels_last", False)],
)
def test_a_block_is_twice_convolution_norm_and_relu_in_that_order(convolution, train):
    block = ConvBlock(4, jnp.float32, convolution)
    _check_against_numpy(block, train, "twice")


@pytest.mark.parametrize("train", [False, True])
def test_a_pointwise_block_is_convolution_norm_and_relu(train):
    _check_against_numpy(PointwiseBlock(4, jnp.float32), train, "pointwise")


def test_on_gpus_a_norm_costs_no_pass_over_the_volume_outside_of_training():
    for dtype in (jnp.float32, jnp.bfloat16):
        block, x = ConvBlock(4, dtype, "channels_last"), jnp.asarray(X, dtype)
        apply = partial(block.apply, train=False)
        shapes = jax.eval_shape(partial(block.init, train=False), jax.random.key(0), x)
        program = jax.jit(apply).lower(shapes, x).as_text()
        lines = [line for line in program.splitlines() if "stablehlo." in line]
        of_volume = [line for line in lines if "2x4x4x6x4x" in line]
        assert sum("stablehlo.convolution" in line for line in of_volume) == 2
        for operation in ("multiply", "subtract", "convert"):
            assert not any(operation in line for line in of_volume)


def _check_against_numpy(block: Any, train: bool, kind: str):
    shapes = jax.eval_shape(lambda: init(block, jnp.asarray(X), train))
    variables = random_variables(shapes, seed=1)
    numpy = NumpyNetwork({k: {"block": v} for k, v in variables.items()}, {}, train)
    expected = getattr(numpy, kind)("block", X.astype(float))
    narrow = jax.tree.map(lambda v: v.astype(np.float32), variables)
    got, _ = jax.jit(partial(block.apply, train=train, mutable=["batch_stats"]))(
        narrow, X
    )
    assert (np.asarray(got) >= 0).all() and (np.asarray(got) == 0).any()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
