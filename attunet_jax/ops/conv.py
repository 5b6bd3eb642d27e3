"""The network's convolutions in their plain form: channels last, no bias.

These are what the network computes. How one CPU device computes the same faster stands
in `ops/cpu`; `ops/dispatch.py` decides between them.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NDHWC", "DHWIO", "NDHWC")


def conv3x3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding, which keeps the size.

    x [B, D, H, W, C], kernel [3, 3, 3, C, O] of the same type -> [B, D, H, W, O].
    """
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=DIMENSIONS
    )


def conv3x3x3_of_concatenation(
    parts: Sequence[jax.Array], kernel: jax.Array
) -> jax.Array:
    """Convolves the concatenation of `parts` along the channels, without making it.

    parts [B, D, H, W, C_i], kernel [3, 3, 3, sum of C_i, O] -> [B, D, H, W, O]: the sum
    of each part's convolution. cuDNN adds while it convolves, so a GPU writes and reads
    the sum once, where it would write the concatenation, in the backward pass too.
    """
    ends = list(itertools.accumulate(part.shape[-1] for part in parts))
    kernels = jnp.split(kernel, ends[:-1], axis=3)
    return functools.reduce(jnp.add, map(conv3x3x3, parts, kernels))


def conv_1x1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [B, D, H, W, C], kernel [1, 1, 1, C, O] -> [B, D, H, W, O]."""
    return jnp.einsum("bdhwc,co->bdhwo", x, kernel[0, 0, 0])


def conv_2x2x2_stride_2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves disjoint 2x2x2 blocks, without padding.

    x [B, D, H, W, C], kernel [2, 2, 2, C, O] -> [B, D//2, H//2, W//2, O]; a last
    slice, row or column without a partner is left out.
    """
    batch, depth, height, width, channels = x.shape
    d, h, w = depth // 2, height // 2, width // 2
    blocks = x[:, : 2 * d, : 2 * h, : 2 * w].reshape(batch, d, 2, h, 2, w, 2, channels)
    return jnp.einsum("bdxhywzc,xyzco->bdhwo", blocks, kernel)


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the type in which products of `dtype` are summed: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)
