"""A 3x3x3 convolution that keeps what its input is made of, not the input itself.

The gradient of a convolution's kernel needs the convolution's input. Where that is
cheap to make, a normalised activation or a concatenation, the backward pass makes it
anew: a train step takes 0.6 of the memory and the same time (docs/benchmarks.md).

A decoder's first convolution of a scale: of a skip and of coarser features.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from attunet_jax.ops.conv import COMPILER, conv3x3x3
from attunet_jax.ops.cpu import conv_upsampled
from attunet_jax.ops.cpu.bf16_bits import concatenate
from attunet_jax.ops.cpu.sequencing import not_before
from attunet_jax.ops.resize import upsample


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


@dataclass(frozen=True)
class Joined:
    """skip [B, D, H, W, S], coarser [B, D/2, H/2, W/2, C] -> [B, D, H, W, S + C].

    Of its fields alone, as what a backward pass calls again must be.
    """

    align_corners: bool

    def __call__(self, skip: jax.Array, coarser: jax.Array) -> jax.Array:
        finer = upsample(coarser, 2, align_corners=self.align_corners)
        return concatenate([skip, finer], axis=-1)


def conv3x3x3_of_joined(
    joined: Joined,
    arrays: tuple[jax.Array, ...],
    kernel: jax.Array,
    formulation: str,
) -> jax.Array:
    """`conv3x3x3_of`; on one CPU device without joining: fewer operations."""
    if joined.align_corners or formulation == COMPILER:
        return conv3x3x3_of(joined, arrays, kernel, formulation)
    skip, coarser = arrays
    return _apart(skip, coarser, kernel, formulation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _apart(skip, coarser, kernel, formulation):
    of_skip, of_coarser = _cut(kernel, skip)
    y = conv3x3x3(skip, of_skip, formulation=formulation)
    return conv_upsampled.add_convolution(y, coarser, of_coarser)


def _apart_forward(skip, coarser, kernel, formulation):
    return _apart(skip, coarser, kernel, formulation), (skip, coarser, kernel)


def _apart_backward(formulation, residuals, cotangent):
    skip, coarser, kernel = residuals
    of_skip, of_coarser = _cut(kernel, skip)
    coarser, of_coarser = conv_upsampled.gradients(
        coarser, of_coarser, cotangent, formulation
    )
    # Not both at once, which would need the memory of both.
    cotangent, skip = not_before((cotangent, skip), of_coarser)
    convolve = functools.partial(conv3x3x3, formulation=formulation)
    _, back = jax.vjp(convolve, skip, of_skip)
    skip, of_skip = back(cotangent)
    return skip, coarser, jnp.concatenate([of_skip, of_coarser], axis=3)


_apart.defvjp(_apart_forward, _apart_backward)


def _cut(kernel, skip):
    """The kernel for the skip's channels, and that for the coarser features'."""
    return jnp.split(kernel, [skip.shape[-1]], axis=3)
