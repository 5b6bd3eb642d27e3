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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def conv3x3x3_of(
    make_input: Callable[..., jax.Array],
    arrays: tuple[jax.Array, ...],
    kernel: jax.Array,
    bias: jax.Array,
    formulation: str,
) -> jax.Array:
    """`conv3x3x3(make_input(*arrays), kernel) + bias`.

    `make_input` is pure, may close over no array, and gives [B, D, H, W, C]; kernel
    [3, 3, 3, C, O], bias [O] in float32 -> [B, D, H, W, O] in the kernel's type.
    """
    y = conv3x3x3(make_input(*arrays), kernel, formulation=formulation)
    return (y + bias).astype(y.dtype)


def _forward(make_input, arrays, kernel, bias, formulation):
    y = conv3x3x3_of(make_input, arrays, kernel, bias, formulation)
    return y, (arrays, kernel, bias)


def _backward(make_input, formulation, residuals, cotangent):
    arrays, kernel, bias = residuals
    bias_gradient = cotangent.astype(bias.dtype).sum((0, 1, 2, 3))
    convolve = functools.partial(conv3x3x3, formulation=formulation)
    x, back_to_arrays = jax.vjp(make_input, *not_before(arrays, bias_gradient))
    _, back_to_x = jax.vjp(convolve, x, kernel)
    x_cotangent, kernel_gradient = back_to_x(cotangent)
    return back_to_arrays(x_cotangent), kernel_gradient, bias_gradient


conv3x3x3_of.defvjp(_forward, _backward)
