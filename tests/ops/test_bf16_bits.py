"""Joining by bits: what jax.numpy joins and cuts, to the last bit, in every type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.ops.cpu.bf16_bits import as_bits, concatenate, from_bits


def volumes(dtype):
    random = np.random.default_rng(0)
    shapes = ((2, 3, 4, 1), (2, 3, 4, 2), (2, 3, 4, 5))
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_joined_arrays_and_their_gradients_are_jax_numpys(dtype):
    arrays = volumes(dtype)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 8)), dtype)

    def total(arrays):
        return jnp.sum(concatenate(arrays, axis=-1) * weights, dtype=jnp.float32)

    got = jax.jit(concatenate, static_argnames="axis")(arrays, axis=-1)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.concatenate(arrays, -1))
    gradients = jax.jit(jax.grad(total))(arrays)
    cut = np.split(np.asarray(weights), [1, 3], -1)
    for gradient, expected in zip(gradients, cut, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, expected)


def test_two_byte_floats_are_compiled_as_integers_for_cpus_and_as_they_are_elsewhere():
    arrays = volumes(jnp.bfloat16)
    join = jax.jit(lambda *a: concatenate(a, axis=-1))
    on_cpu = join.trace(*arrays).lower(lowering_platforms=("cpu",)).as_text()
    elsewhere = join.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert "ui16" in on_cpu and "ui16" not in elsewhere


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_bits_and_back_are_the_same_array_with_its_nans(dtype):
    x = jnp.asarray([0.0, -0.0, 1.5, jnp.inf, jnp.nan], dtype)
    back = from_bits(as_bits(x), x.dtype)
    assert back.dtype == dtype
    assert np.asarray(back).tobytes() == np.asarray(x).tobytes()
    assert as_bits(x).dtype == (jnp.uint16 if dtype == jnp.bfloat16 else dtype)
