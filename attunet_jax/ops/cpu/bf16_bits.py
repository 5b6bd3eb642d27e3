"""Concatenates and splits arrays of 2-byte floats by their bits, as unsigned integers.

XLA's CPU backend moves bfloat16 as float32, with a conversion before and one after;
integers it moves as they are. Other backends run the plain form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def as_bits(x: jax.Array) -> jax.Array:
    """Returns uint16 of the same shape for a 2-byte float, else x; no gradient."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def from_bits(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Inverts `as_bits`: the floats of type `dtype`."""
    return x if x.dtype == dtype else lax.bitcast_convert_type(x, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def concatenate(arrays: tuple[jax.Array, ...], axis: int) -> jax.Array:
    """`jnp.concatenate` of arrays of one type of 2-byte floats."""

    def by_bits(*arrays):
        joined = jnp.concatenate([as_bits(x) for x in arrays], axis)
        return from_bits(joined, arrays[0].dtype)

    def plain(*arrays):
        return jnp.concatenate(arrays, axis)

    return lax.platform_dependent(*arrays, cpu=by_bits, default=plain)


def _forward(arrays, axis):
    return concatenate(arrays, axis), [x.shape[axis] for x in arrays]


def _backward(axis, sizes, cotangent):
    cuts = np.cumsum(sizes)[:-1]

    def by_bits(x):
        return tuple(from_bits(y, x.dtype) for y in jnp.split(as_bits(x), cuts, axis))

    def plain(x):
        return tuple(jnp.split(x, cuts, axis))

    return (lax.platform_dependent(cotangent, cpu=by_bits, default=plain),)


concatenate.defvjp(_forward, _backward)
