"""Makes XLA compute one thing after another, for the memory of a single CPU device."""

from typing import Any

import jax
import jax.numpy as jnp


def sequence_after(arrays: Any, other: jax.Array) -> Any:
    """Returns `arrays`, a tree of floats, with a data dependency on `other`.

    For backward passes: XLA cannot find what depends on a gradient equal to what the
    forward pass computed and keep it since then, and memory is released in the intended
    order. `jax.lax.optimization_barrier`, and so `jax.checkpoint`, does not achieve
    this: XLA's CPU backend removes barriers before it looks for equal computations.

    Where the first number of `other` is NaN, `arrays` become NaN. `other` should be a
    sum or a product: the one number of anything cheaper XLA computes a second time.
    """
    first = other[(0,) * other.ndim]
    return jax.tree.map(
        lambda a: jnp.where(jnp.isnan(first), first.astype(a.dtype), a), arrays
    )
