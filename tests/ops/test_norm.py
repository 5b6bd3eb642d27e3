"""BatchNorm against NumPy: values, running statistics, and its rules of gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.model.layers import BatchNorm, BatchNormRelu, Biased

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (2, 4, 4, 6, 3)).astype(np.float32)


def init(module: Any, x: Any, train: bool) -> Any:
    return jax.jit(module.init, static_argnums=2)(jax.random.key(0), x, train)


def test_batch_norm_begins_near_1_and_at_0_without_having_seen_anything():
    norm = BatchNorm()
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
    y, updates = BatchNorm().apply(NORM, X, True, mutable=["batch_stats"])
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
    y: Any = BatchNorm().apply(NORM, X, False)
    expected = (X - [1, 0, -1]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5)
    expected = expected * [1, 2, -1] + [0, 1, 0.5]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_a_mean_far_above_the_deviation_costs_no_digits():
    far = (X + 10_000).astype(np.float32)
    y: Any
    y, _ = BatchNorm().apply(NORM, far, True, mutable=["batch_stats"])
    flat = far.reshape(-1, 3).astype(float)
    expected = (flat - flat.mean(0)) / flat.std(0) * [1, 2, -1] + [0, 1, 0.5]
    np.testing.assert_allclose(y.reshape(-1, 3), expected, rtol=0, atol=5e-3)


def test_a_single_voxel_becomes_the_bias_and_its_variance_is_zero():
    one = np.full((1, 1, 1, 1, 3), 5, np.float32)
    y: Any
    y, updates = BatchNorm().apply(NORM, one, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [0, 1, 0.5])
    stats: Any = updates["batch_stats"]
    np.testing.assert_allclose(stats["var"], [3.6, 0.9, 0.225], rtol=1e-6)


def test_bfloat16_activations_are_counted_in_float32():
    # 4096 ones and as many 1.0078125s (the next bfloat16): the sum needs 14 bits.
    x = np.repeat([1.0, 1.0078125], 4096).reshape(1, 16, 16, 32, 1)
    norm = BatchNorm()
    variables: Any = init(norm, x, False)
    y: Any
    y, updates = norm.apply(
        variables, jnp.asarray(x, jnp.bfloat16), True, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    stats: Any = updates["batch_stats"]
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    np.testing.assert_allclose(stats["mean"], 0.1 * 1.00390625, rtol=1e-6)


def from_numbers(x, numbers, train):
    """BatchNorm and ReLU of 4 numbers a channel in float64, by JAX's own rules."""
    scale, bias, shift, stored = numbers
    mean, var = stored, stored**2 + 1
    x = x + shift
    if train:
        mean = x.mean((0, 1, 2, 3))
        var = jnp.square(x - mean).mean((0, 1, 2, 3))
    return jnp.maximum((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias, 0)


@pytest.mark.parametrize("train", [True, False])
def test_gradients_are_those_of_the_formulas(train):
    numbers = RNG.normal(1, 0.5, (4, 3))
    weights = RNG.normal(size=X.shape)

    def ours(x: Any, numbers: Any) -> Any:
        scale, bias, shift, stored = numbers
        variables: Any = {
            "params": {"scale": scale, "bias": bias},
            "batch_stats": {"mean": stored, "var": stored**2 + 1},
        }
        y: Any
        y, _ = BatchNormRelu().apply(
            variables, Biased(x, shift), train, mutable=["batch_stats"]
        )
        return (y.array() * weights.astype(np.float32)).sum()

    def plain(x, numbers):
        return (from_numbers(x, numbers, train) * weights).sum()

    got = jax.jit(jax.grad(ours, (0, 1)))(X, numbers.astype(np.float32))
    with jax.enable_x64(True):
        wide = jnp.asarray(X, jnp.float64), jnp.asarray(numbers)
        expected = jax.jit(jax.grad(plain, (0, 1)))(*wide)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
    if train:  # not rounding noise, of which Adam would make whole steps
        np.testing.assert_array_equal(got[1][2:], 0)


def test_a_deferred_bias_counts_as_if_it_were_added_before():
    shift = np.array([3.0, -1.0, 0.5], np.float32)
    for train in (True, False):
        norm = BatchNorm()
        got = norm.apply(
            NORM,
            Biased(jnp.asarray(X), jnp.asarray(shift)),
            train,
            mutable=["batch_stats"],
        )
        added = norm.apply(NORM, X + shift, train, mutable=["batch_stats"])
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(added), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
