"""3x3x3 convolution on one CPU device: "matrix" or "onednn" with one gradient rule.

The input may be a `Deferred`: then the backward pass makes it again instead of keeping
it. A convolution of a skip connection joined with upsampled features goes apart.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from attunet_jax.ops.cpu import conv_matmul, conv_onednn, conv_upsampled
from attunet_jax.ops.cpu.sequencing import sequence_after
from attunet_jax.ops.recompute import Deferred
from attunet_jax.ops.resize import UpsampleConcat

ONEDNN = "onednn"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3x3(x: jax.Array, kernel: jax.Array, convolution: str) -> jax.Array:
    """`ops.conv.conv3x3x3`; `convolution` is "matrix" or "onednn"."""
    if convolution == ONEDNN:
        return conv_onednn.conv3x3x3(x, kernel)
    return conv_matmul.conv3x3x3(x, kernel)


def _conv_forward(x, kernel, convolution):
    return conv3x3x3(x, kernel, convolution), (x, kernel)


def _conv_backward(convolution, residuals, cotangent):
    x, kernel = residuals
    matmul = _matmul_transpose_a(convolution)
    gradient = conv_matmul.kernel_gradient(x, cotangent, kernel.dtype, matmul)
    # x is no longer needed before the gradient of x takes as much memory.
    adjoint = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    adjoint = sequence_after(adjoint, gradient)
    return conv3x3x3(cotangent, adjoint, convolution), gradient


conv3x3x3.defvjp(_conv_forward, _conv_backward)


def conv3x3x3_of_deferred(
    x: Deferred, kernel: jax.Array, convolution: str, *, apart: bool = True
) -> jax.Array:
    """`conv3x3x3(x.array(), kernel)`, keeping `x.args` for the backward pass.

    With `apart`, a skip connection joined with upsampled features is never joined.
    """
    if apart and isinstance(x.fn, UpsampleConcat) and not x.fn.align_corners:
        skip, coarser = x.args
        return _conv_of_upsample_concat(skip, coarser, kernel, convolution)
    return _conv_of_recomputed(x.fn, x.args, kernel, convolution)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _conv_of_recomputed(fn, args, kernel, convolution):
    return conv3x3x3(fn(*args), kernel, convolution)


def _recomputed_forward(fn, args, kernel, convolution):
    return _conv_of_recomputed(fn, args, kernel, convolution), (args, kernel)


def _recomputed_backward(fn, convolution, residuals, cotangent):
    args, kernel = residuals
    # In this network the cotangent's first number waits for a BatchNorm's sums.
    x, back_to_args = jax.vjp(fn, *sequence_after(args, cotangent))
    convolve = functools.partial(conv3x3x3, convolution=convolution)
    _, back_to_x = jax.vjp(convolve, x, kernel)
    x_cotangent, kernel_gradient = back_to_x(cotangent)
    return back_to_args(x_cotangent), kernel_gradient


_conv_of_recomputed.defvjp(_recomputed_forward, _recomputed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv_of_upsample_concat(skip, coarser, kernel, convolution):
    """conv(concat(skip, up(coarser))) = conv(skip) + conv(up(coarser))."""
    skip_kernel, coarser_kernel = _split_kernel(kernel, skip)
    y: jax.Array = conv3x3x3(skip, skip_kernel, convolution)
    return conv_upsampled.add_convolution(y, coarser, coarser_kernel)


def _apart_forward(skip, coarser, kernel, convolution):
    y = _conv_of_upsample_concat(skip, coarser, kernel, convolution)
    return y, (skip, coarser, kernel)


def _apart_backward(convolution, residuals, cotangent):
    skip, coarser, kernel = residuals
    skip_kernel, coarser_kernel = _split_kernel(kernel, skip)
    of_coarser, of_coarser_kernel = conv_upsampled.gradients(
        coarser, coarser_kernel, cotangent, _matmul_transpose_a(convolution)
    )
    # One after the other: both at once would need the memory of both.
    cotangent, skip = sequence_after((cotangent, skip), of_coarser_kernel)
    convolve = functools.partial(conv3x3x3, convolution=convolution)
    _, back = jax.vjp(convolve, skip, skip_kernel)
    of_skip, of_skip_kernel = back(cotangent)
    kernel_gradient = jnp.concatenate([of_skip_kernel, of_coarser_kernel], axis=3)
    return of_skip, of_coarser, kernel_gradient


_conv_of_upsample_concat.defvjp(_apart_forward, _apart_backward)


def _split_kernel(kernel, skip):
    """Returns the kernel for the skip's channels and that for the coarser features'."""
    return jnp.split(kernel, [skip.shape[-1]], axis=3)


def _matmul_transpose_a(convolution: str) -> Callable[..., jax.Array]:
    if convolution == ONEDNN:
        return conv_onednn.matmul_transpose_a
    return conv_matmul.matmul_transpose_a
