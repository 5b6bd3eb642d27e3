"""3x3x3 convolution on one CPU device as matrix products, and its kernel's gradient.

XLA's CPU backend computes 3-D convolutions slowly, 2-D convolutions and matrix products
fast. Three ways to restate one as the others, each the fastest for some numbers of
channels; all from supported operations.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from attunet_jax.ops.conv import accumulation_dtype
from attunet_jax.ops.cpu.bf16_bits import as_bits, from_bits

MAX_TILE_ROWS = 6144  # rows of one product within the gradient of a kernel


def conv3x3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`ops.conv.conv3x3x3`; it has no gradient rule of its own."""
    channels, outputs = kernel.shape[3:]
    if channels <= 16 and outputs <= 16:
        return _scan_over_depth(x, kernel)
    if channels >= 64 or channels > outputs:
        return _taps_as_outputs(x, kernel)
    return _taps_as_sum(x, kernel)


def kernel_gradient(
    x: jax.Array,
    cotangent: jax.Array,
    dtype: jnp.dtype,
    matmul_transpose_a: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Gradient of `conv3x3x3` with respect to its kernel, [3, 3, 3, C, O] of `dtype`.

    The sum over all slices of (shifts of x)^T (shifts of the cotangent); each product
    is computed by `matmul_transpose_a`.
    """
    batch, depth, height, width, channels = x.shape
    outputs = cotangent.shape[4]
    if channels <= outputs:
        gradient = _correlate(x, cotangent, matmul_transpose_a)
        gradient = gradient.reshape(3, 3, channels, 3, outputs)
        return gradient.transpose(3, 0, 1, 2, 4)[::-1].astype(dtype)
    gradient = _correlate(cotangent, x, matmul_transpose_a)
    gradient = gradient.reshape(3, 3, outputs, 3, channels)
    return gradient.transpose(3, 0, 1, 4, 2)[:, ::-1, ::-1].astype(dtype)


def _correlate(a, b, matmul_transpose_a):
    """[9 A, 3 B]: a [B, D, H, W, A] shifted in the plane, b along depth by -1, 0, 1."""
    batch, depth, height, width, _ = a.shape
    slices = tile_depth(depth, height * width, MAX_TILE_ROWS)
    dtype, wide = a.dtype, accumulation_dtype(a.dtype)
    a, b = as_bits(a), as_bits(b)
    # The neighbours along depth are concatenated slice by slice, in the cache: for the
    # whole volume at once that takes as long as the products.
    padded = jnp.pad(b, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    padded = padded.reshape(batch * (depth + 2), height * width, -1)
    below = jnp.arange(batch)[:, None] * (depth + 2) + jnp.arange(0, depth, slices)

    def add_slices(total, pair):
        neighbours = _in_plane_shifts(pair[0])
        neighbours = neighbours.reshape(-1, neighbours.shape[-1])
        along_depth = [
            lax.dynamic_slice_in_dim(padded, pair[1] + i, slices) for i in range(3)
        ]
        along_depth = [x.reshape(-1, x.shape[-1]) for x in along_depth]
        along_depth = from_bits(jnp.concatenate(along_depth, axis=-1), dtype)
        neighbours = from_bits(neighbours, dtype)
        return total + matmul_transpose_a(neighbours, along_depth), None

    zero = jnp.zeros((9 * a.shape[4], 3 * b.shape[4]), wide)
    each = () if slices == 1 else (slices,)
    planes = a.reshape(batch * depth // slices, *each, height, width, -1)
    return lax.scan(add_slices, zero, (planes, below.reshape(-1)))[0]


def matmul_transpose_a(a: jax.Array, b: jax.Array) -> jax.Array:
    """a [N, A] transposed times b [N, B] -> [A, B], in float32 or wider."""
    over_rows = ((0,), (0,)), ((), ())
    wide = accumulation_dtype(a.dtype)
    return lax.dot_general(a, b, over_rows, preferred_element_type=wide)


def tile_depth(depth: int, voxels: int, max_rows: int) -> int:
    """Returns how many slices of one case a scan takes a step: one of a fine grid.

    Each step costs its calls and a sum as large as a kernel's gradient, which on coarse
    grids is more than the factors; factors of more than `max_rows` rows would not stay
    in the cache.
    """
    fitting = max(max_rows // voxels, 1)
    return max(n for n in range(1, depth + 1) if depth % n == 0 and n <= fitting)


def _planes(x, kernel):
    """2-D convolution of every slice: x [B, D, H, W, C], kernel [3, 3, C, O]."""
    batch, depth, height, width, channels = x.shape
    # One column too many: XLA's CPU backend then takes its multi-threaded path.
    y = lax.conv_general_dilated(
        x.reshape(batch * depth, height, width, channels),
        kernel,
        (1, 1),
        ((1, 1), (1, 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=accumulation_dtype(x.dtype),
    )
    return y[:, :, :width].reshape(batch, depth, height, width, -1)


def _shift_depth(x, by):
    """Slice d of the result is slice d - by of x, zero outside."""
    zero = jnp.zeros((), x.dtype)
    edges = [(by, -by, 0) if axis == 1 else (0, 0, 0) for axis in range(x.ndim)]
    return lax.pad(x, zero, edges)


def _taps_as_outputs(x, kernel):
    channels, outputs = kernel.shape[3:]
    taps = kernel.transpose(1, 2, 3, 0, 4).reshape(3, 3, channels, 3 * outputs)
    below, here, above = jnp.split(_planes(x, taps), 3, axis=-1)
    return (_shift_depth(below, 1) + here + _shift_depth(above, -1)).astype(x.dtype)


def _taps_as_sum(x, kernel):
    below = _planes(_shift_depth(x, 1), kernel[0])
    here = _planes(x, kernel[1])
    above = _planes(_shift_depth(x, -1), kernel[2])
    return (below + here + above).astype(x.dtype)


def _in_plane_shifts(x):
    """x [..., H, W, C] -> [..., H, W, 9 C]: the 3x3 neighbours of each position."""
    height, width = x.shape[-3:-1]
    edges = [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
    padded = jnp.pad(x, edges)
    shifts = [
        padded[..., row : row + height, column : column + width, :]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifts, axis=-1)


def _scan_over_depth(x, kernel):
    batch, depth, height, width, channels = x.shape
    outputs = kernel.shape[4]
    taps = kernel.transpose(1, 2, 3, 0, 4).reshape(9 * channels, 3 * outputs)
    wide = accumulation_dtype(x.dtype)

    def slice_in_sum_out(sums, plane):
        neighbours = _in_plane_shifts(plane).reshape(-1, 9 * channels)
        y = jnp.dot(neighbours, taps, preferred_element_type=wide)
        above, here, below = jnp.split(y, 3, axis=-1)
        finished = (sums[0] + below).astype(x.dtype)
        return (sums[1] + here, above), finished

    zero = jnp.zeros((batch * height * width, outputs), wide)
    (last, _), finished = lax.scan(
        slice_in_sum_out, (zero, zero), x.transpose(1, 0, 2, 3, 4)
    )
    y = jnp.concatenate([finished[1:], last.astype(x.dtype)[None]])
    return y.reshape(depth, batch, height, width, outputs).transpose(1, 0, 2, 3, 4)
