"""`Deferred`: a lazy array, described by how it is made and so not kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Deferred:
    """The array `fn(*args)`, not computed yet.

    The gradient of a convolution's kernel needs the convolution's input. Where that
    input is cheap to make (a normalised activation, a concatenation), one CPU device
    keeps `args` and makes it again in the backward pass. Everywhere else `array()` is
    called at once, and what is kept is up to JAX (`jax.checkpoint` with `remat=True`).

    `fn` is pure and hashable and closes over no array.
    """

    fn: Callable[..., jax.Array] = field(metadata={"static": True})
    args: tuple[Any, ...]

    def array(self) -> jax.Array:
        """Computes the array."""
        return self.fn(*self.args)

    def parts(self) -> list[jax.Array]:
        """Computes arrays whose concatenation along the channels the array is.

        They are those of `fn.parts`; a function without it makes the array in one part.
        """
        parts = getattr(self.fn, "parts", None)
        return [self.array()] if parts is None else parts(*self.args)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array, which is not computed for it."""
        return jax.eval_shape(self.fn, *self.args).shape


def array_of(x: "jax.Array | Deferred") -> jax.Array:
    """Returns `x` itself, or the array that it defers."""
    return x.array() if isinstance(x, Deferred) else x
