"""3x3x3 convolution of a volume upsampled trilinearly, without upsampling it, for CPUs.

A product with all 27 taps commutes with upsampling, so it is taken on the coarse grid,
which has an eighth of the voxels. Along one axis then, with u(v) the coarse array v
upsampled to twice its length (`resize.upsample`, align_corners=False) and v_k the
product with tap k,

    y[f] = u(v_0)[f - 1] + u(v_1)[f] + u(v_2)[f + 1],     zero outside the fine grid:

a few coarse neighbours, weighted and summed. Three times that, an axis after the other,
is the convolution. The backward pass goes the same way back, and both gradients are
products on the coarse grid as well. In bfloat16 everything but the products' factors is
in float32.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attunet_jax.ops.conv import accumulation_dtype
from attunet_jax.ops.cpu.bf16_bits import as_bits, from_bits
from attunet_jax.ops.cpu.conv_matmul import tile_depth
from attunet_jax.ops.resize import interleave

MAX_TILE_ROWS = 1024  # voxels of the coarse grid for a step; each becomes 27 products


def add_convolution(onto: jax.Array, coarse: jax.Array, kernel: jax.Array) -> jax.Array:
    """`onto + conv3x3x3(upsample(coarse, 2, align_corners=False), kernel)`.

    onto [B, 2 D, 2 H, 2 W, O], coarse [B, D, H, W, C], kernel [3, 3, 3, C, O]. The same
    sums in another order, in the type of `onto`. For its gradient use `gradients`.
    """
    batch, depth, height, width, _ = coarse.shape
    taps = _taps(kernel)
    x = _with_zeros_around(coarse, 1)
    slices = tile_depth(depth + 2, height * width, MAX_TILE_ROWS)
    steps = x.reshape(-1, slices, height + 2, width + 2, x.shape[-1])
    wide = accumulation_dtype(kernel.dtype)

    def step(_, x):
        y = jnp.dot(x, taps, preferred_element_type=wide)
        for axis in (2, 1):
            y = interleave(_spread(y, axis), axis)
        return None, y

    y = lax.scan(step, None, steps)[1]
    y = y.reshape(batch, depth + 2, 2 * height, 2 * width, -1)
    # Added before the slices are put in their order: after that XLA would add anew
    # wherever the sum is read, and keep both for the backward pass.
    phases = zip(_spread(y, 1), _by_phase(onto, 1), strict=True)
    return interleave([(a + b).astype(onto.dtype) for a, b in phases], 1)


def gradients(
    coarse: jax.Array,
    kernel: jax.Array,
    cotangent: jax.Array,
    matmul_transpose_a: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Gradients of `add_convolution` with respect to `coarse` and `kernel`.

    The products of the kernel's gradient are computed by `matmul_transpose_a`.
    """
    batch, depth, height, width, channels = coarse.shape
    outputs = kernel.shape[4]
    taps = _taps(kernel).T
    slices = tile_depth(depth, height * width, MAX_TILE_ROWS)
    wide = accumulation_dtype(kernel.dtype)
    by_depth = [
        y.reshape(-1, slices, *y.shape[2:])
        for y in _collect(_with_zeros_around(cotangent.astype(wide), 2), 1)
    ]
    steps = coarse.reshape(-1, slices, height, width, channels)

    def step(total, arrays):
        x, *y = arrays
        y = jnp.concatenate(y, -1)
        for axis in (1, 2):
            y = jnp.concatenate(_collect(y, axis), -1)
        y = y.reshape(-1, 27 * outputs).astype(x.dtype)
        total += matmul_transpose_a(x.reshape(-1, channels), y)
        gradient = jnp.dot(y, taps, preferred_element_type=wide)
        # By bits: of 2-byte floats XLA would convert all slices for each it puts there.
        return total, as_bits(gradient.astype(x.dtype))

    zero = jnp.zeros((channels, 27 * outputs), wide)
    total, gradient = lax.scan(step, zero, (steps, *by_depth))
    gradient = from_bits(gradient, coarse.dtype)
    total = total.reshape(channels, 3, 3, 3, outputs).transpose(3, 2, 1, 0, 4)
    return gradient.reshape(coarse.shape), total.astype(kernel.dtype)


def _taps(kernel):
    """[3, 3, 3, C, O] -> [C, 27 O]: the taps along width apart the most."""
    return kernel.transpose(3, 2, 1, 0, 4).reshape(kernel.shape[3], -1)


def _with_zeros_around(x, count):
    """Joined, not padded: XLA would pad anew, voxel by voxel, wherever it reads."""
    for axis in (1, 2, 3):
        shape = list(x.shape)
        shape[axis] = count
        zeros = jnp.zeros(shape, x.dtype)
        x = jnp.concatenate([zeros, x, zeros], axis)
    return x


def _spread(products, axis):
    """Along one axis from [.., n + 2, .., 3 O], ends zero, to 2 of [.., n, .., O]."""
    by_tap = jnp.split(products, 3, axis=-1)
    return _mixed(by_tap, _spreading(products.shape[axis] - 2), axis)


def _collect(cotangent, axis):
    """Its adjoint, from [.., 2 n + 4, .., O], ends zero, to 3 of [.., n, .., O]."""
    by_phase = _by_phase(cotangent, axis)
    return _mixed(by_phase, _collecting(by_phase[0].shape[axis] - 2), axis)


def _by_phase(x, axis):
    """Even and odd positions along the axis."""
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    return [lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)]


def _mixed(arrays, weights, axis):
    """Weighted sums of neighbours along the axis; weights [results, arrays, 3, n]."""
    count = weights.shape[-1]
    shape = [count if a == axis else 1 for a in range(arrays[0].ndim)]

    def mixed(of_result):
        terms = [
            jnp.asarray(weight.reshape(shape), array.dtype)
            * lax.slice_in_dim(array, shift, shift + count, axis=axis)
            for array, shifts in zip(arrays, of_result, strict=True)
            for shift, weight in enumerate(shifts)
            if weight.any()
        ]
        return functools.reduce(jnp.add, terms)

    return [mixed(of_result) for of_result in weights]


def _spreading(count):
    """[2 phases, 3 taps, 3, n]: the share of v_tap[i + shift - 1] in y[2 i + phase]."""
    phase, tap, shift, i = np.ogrid[:2, :3, :3, :count]
    return _linear(count)[2 * i + phase + tap + 2, i + shift]


def _collecting(count):
    """[3 taps, 2 phases, 3, n]: that of v_tap[i] in y[2 (i + shift - 1) + phase]."""
    tap, phase, shift, i = np.ogrid[:3, :2, :3, :count]
    return _linear(count)[2 * (i + shift) + phase + tap, i + 1]


def _linear(count):
    """Row f + 3, column i + 1: the share of coarse position i in fine position f."""
    weights = np.zeros((2 * count + 6, count + 2))
    for fine in range(2 * count):
        coarse = fine // 2
        neighbour = min(max(coarse + (1 if fine % 2 else -1), 0), count - 1)
        weights[fine + 3, coarse + 1] += 0.75
        weights[fine + 3, neighbour + 1] += 0.25
    return weights
