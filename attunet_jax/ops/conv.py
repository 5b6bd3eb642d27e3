"""Channels-last 3-D convolutions of the network: volume and kernel in, volume out.

The 3x3x3 convolution exists in three formulations that agree to rounding. "compiler" is
XLA's own: right on GPUs and TPUs, and it exchanges one slice a side on a mesh.
"matrix" restates it as matrix products: on one CPU device several times faster.
"onednn" is that with the products left to oneDNN, where jaxlib holds it: faster still.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from attunet_jax.errors import BadArguments
from attunet_jax.ops.cpu import conv_onednn
from attunet_jax.ops.cpu.bf16_bits import as_bits, from_bits
from attunet_jax.ops.cpu.sequencing import not_before

MOST_ROWS = 6144  # of a product within the gradient of a kernel, on a CPU
COMPILER, MATRIX, ONEDNN = FORMULATIONS = ("compiler", "matrix", "onednn")


def choose_formulation(backend: str, device_count: int, dtype: str) -> str:
    """The fast formulation of `conv3x3x3` for a backend, its mesh's devices, a type.

    Another than "compiler" only on one CPU device: their scans walk over batch and
    depth, so they would gather what a mesh of several devices splits.
    """
    if backend != "cpu" or device_count != 1:
        return COMPILER
    return ONEDNN if conv_onednn.available(dtype) else MATRIX


def conv3x3x3(x: jax.Array, kernel: jax.Array, *, formulation: str) -> jax.Array:
    """Convolution with stride 1 and zero padding that keeps the size, no bias.

    x [B, D, H, W, C], kernel [3, 3, 3, C, O] of the same type -> [B, D, H, W, O].
    Raises BadArguments for an unknown `formulation`.
    """
    if formulation == COMPILER:
        return _by_compiler(x, kernel)
    if formulation in (MATRIX, ONEDNN):
        return _on_one_cpu(x, kernel, formulation)
    raise BadArguments(
        f"formulation {formulation!r} is unknown; use one of {', '.join(FORMULATIONS)}"
    )


def conv_1x1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [B, D, H, W, C], kernel [1, 1, 1, C, O] -> [B, D, H, W, O], no bias."""
    return jnp.einsum("bdhwc,co->bdhwo", x, kernel[0, 0, 0])


def conv_2x2x2_stride_2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of disjoint 2x2x2 blocks, no padding, no bias.

    x [B, D, H, W, C], kernel [2, 2, 2, C, O] -> [B, D//2, H//2, W//2, O]; a last
    slice, row or column without a partner is left out.
    """
    batch, depth, height, width, channels = x.shape
    d, h, w = depth // 2, height // 2, width // 2
    blocks = x[:, : 2 * d, : 2 * h, : 2 * w].reshape(batch, d, 2, h, 2, w, 2, channels)
    return jnp.einsum("bdxhywzc,xyzco->bdhwo", blocks, kernel)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The type in which products of that type are summed: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)


def slices_at_once(depth: int, voxels: int, most_rows: int) -> int:
    """Slices of one case for a step: one of a fine grid, all of the coarsest.

    Each step costs its calls and a sum as large as a kernel's gradient, which on coarse
    grids is more than the factors; of more rows these would not stay in the cache.
    """
    fitting = max(most_rows // voxels, 1)
    return max(n for n in range(1, depth + 1) if depth % n == 0 and n <= fitting)


def products_summed(a: jax.Array, b: jax.Array, formulation: str) -> jax.Array:
    """a [N, A] transposed times b [N, B], on one CPU device -> [A, B], in float32."""
    if formulation == ONEDNN:
        return conv_onednn.products_summed(a, b)
    over_rows = ((0,), (0,)), ((), ())
    return lax.dot_general(a, b, over_rows, preferred_element_type=accumulator(a.dtype))


def _by_compiler(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _on_one_cpu(x, kernel, formulation):
    if formulation == ONEDNN:
        return conv_onednn.conv3x3x3(x, kernel)
    return _by_matrix(x, kernel)


def _forward(x, kernel, formulation):
    return _on_one_cpu(x, kernel, formulation), (x, kernel)


def _backward(formulation, residuals, cotangent):
    x, kernel = residuals
    gradient = _kernel_gradient(x, cotangent, kernel.dtype, formulation)
    # x is done with before the gradient of x takes as much memory.
    adjoint = not_before(jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4), gradient)
    return _on_one_cpu(cotangent, adjoint, formulation), gradient


_on_one_cpu.defvjp(_forward, _backward)


def _by_matrix(x, kernel):
    channels, outputs = kernel.shape[3:]
    if channels <= 16 and outputs <= 16:
        return _scan_over_depth(x, kernel)
    if channels >= 64 or channels > outputs:
        return _taps_as_outputs(x, kernel)
    return _taps_as_sum(x, kernel)


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
        preferred_element_type=accumulator(x.dtype),
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
    wide = accumulator(x.dtype)

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


def _kernel_gradient(x, cotangent, dtype, formulation):
    """Sum over all slices of (shifts of x)^T (shifts of the cotangent)."""
    batch, depth, height, width, channels = x.shape
    outputs = cotangent.shape[4]
    if channels <= outputs:
        gradient = _correlate(x, cotangent, formulation)
        gradient = gradient.reshape(3, 3, channels, 3, outputs)
        return gradient.transpose(3, 0, 1, 2, 4)[::-1].astype(dtype)
    gradient = _correlate(cotangent, x, formulation)
    gradient = gradient.reshape(3, 3, outputs, 3, channels)
    return gradient.transpose(3, 0, 1, 4, 2)[:, ::-1, ::-1].astype(dtype)


def _correlate(a, b, formulation):
    """[9 A, 3 B]: a [B, D, H, W, A] shifted in the plane, b along depth by -1, 0, 1."""
    batch, depth, height, width, _ = a.shape
    slices = slices_at_once(depth, height * width, MOST_ROWS)
    dtype, wide = a.dtype, accumulator(a.dtype)
    a, b = as_bits(a), as_bits(b)
    # The neighbours along depth are joined slice by slice, in the cache: for the whole
    # volume at once that took as long as the products.
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
        return total + products_summed(neighbours, along_depth, formulation), None

    zero = jnp.zeros((9 * a.shape[4], 3 * b.shape[4]), wide)
    each = () if slices == 1 else (slices,)
    planes = a.reshape(batch * depth // slices, *each, height, width, -1)
    return lax.scan(add_slices, zero, (planes, below.reshape(-1)))[0]
