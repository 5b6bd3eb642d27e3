"""A decoder's first convolution of a scale: of a skip and of coarser features."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from attunet_jax.model import upsampled
from attunet_jax.model.bits import concatenate
from attunet_jax.model.convolution import COMPILER, conv3x3x3
from attunet_jax.model.ordering import not_before
from attunet_jax.model.remade import conv3x3x3_of
from attunet_jax.model.resize import upsample


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
    return upsampled.add_convolution(y, coarser, of_coarser)


def _forward(skip, coarser, kernel, formulation):
    return _apart(skip, coarser, kernel, formulation), (skip, coarser, kernel)


def _backward(formulation, residuals, cotangent):
    skip, coarser, kernel = residuals
    of_skip, of_coarser = _cut(kernel, skip)
    coarser, of_coarser = upsampled.gradients(
        coarser, of_coarser, cotangent, formulation
    )
    # Not both at once, which would need the memory of both.
    cotangent, skip = not_before((cotangent, skip), of_coarser)
    convolve = functools.partial(conv3x3x3, formulation=formulation)
    _, back = jax.vjp(convolve, skip, of_skip)
    skip, of_skip = back(cotangent)
    return skip, coarser, jnp.concatenate([of_skip, of_coarser], axis=3)


_apart.defvjp(_forward, _backward)


def _cut(kernel, skip):
    """The kernel for the skip's channels, and that for the coarser features'."""
    return jnp.split(kernel, [skip.shape[-1]], axis=3)
