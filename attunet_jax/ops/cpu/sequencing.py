"""Arrays in, the same arrays out, but not before another one has been computed."""

from typing import Any

import jax
import jax.numpy as jnp


def not_before(arrays: Any, other: jax.Array) -> Any:
    """`arrays`, any tree of floats, bit for bit, to be had once `other` is there.

    For the backward pass: what depends on a gradient cannot be found equal to what the
    forward pass computed and be kept since then, and memory is free again in the order
    that is asked for. `jax.lax.optimization_barrier`, and so `jax.checkpoint`, does not
    do it: on CPUs XLA takes barriers away before it looks for equal computations.
    Where `other` is NaN, `arrays` are too. `other` should be a sum or a product: of
    cheaper things XLA computes the one number that it needs a second time.
    """
    first = other[(0,) * other.ndim]
    return jax.tree.map(
        lambda a: jnp.where(jnp.isnan(first), first.astype(a.dtype), a), arrays
    )
