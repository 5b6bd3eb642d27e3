"""A 3x3x3 convolution that keeps what its input is made of, not the input itself.

The gradient of a convolution's kernel needs the convolution's input. Where that is
cheap to make, a normalised activation or a concatenation, the backward pass makes it
anew: a train step takes 0.6 of the memory and the same time (docs/benchmarks.md).
"""

import functools
from collections.abc import Callable

import jax

from attunet_jax.model.convolution import conv3x3x3
from attunet_jax.model.ordering import not_before


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def conv3x3x3_of(
    make_input: Callable[..., jax.Array],
    arrays: tuple[jax.Array, ...],
    kernel: jax.Array,
    formulation: str,
) -> jax.Array:
    """`conv3x3x3(make_input(*arrays), kernel)`.

    `make_input` is pure, may close over no array, and gives [B, D, H, W, C]; kernel
    [3, 3, 3, C, O] -> [B, D, H, W, O] in the kernel's type.
    """
    return conv3x3x3(make_input(*arrays), kernel, formulation=formulation)


def _forward(make_input, arrays, kernel, formulation):
    return conv3x3x3_of(make_input, arrays, kernel, formulation), (arrays, kernel)


def _backward(make_input, formulation, residuals, cotangent):
    arrays, kernel = residuals
    convolve = functools.partial(conv3x3x3, formulation=formulation)
    # In this network the cotangent's first number waits for a BatchNorm's sums.
    x, back_to_arrays = jax.vjp(make_input, *not_before(arrays, cotangent))
    _, back_to_x = jax.vjp(convolve, x, kernel)
    x_cotangent, kernel_gradient = back_to_x(cotangent)
    return back_to_arrays(x_cotangent), kernel_gradient


conv3x3x3_of.defvjp(_forward, _backward)
