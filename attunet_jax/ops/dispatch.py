"""Decides which form of an operation computes: the only importer of `ops/cpu`.

A form is one implementation of an operation. "compiler" is XLA's own convolution: right
for TPUs and simulated devices; on a mesh it needs one neighbouring slice from each
side. "channels_last" is the same for GPUs, where XLA is told to keep the channels last,
as cuDNN's kernels for tensor cores want them. "matrix" and "onednn" are for a single
CPU device, where XLA's own is several times slower: they loop (`lax.scan`) over batch
and depth, so a mesh would gather the whole volume. All agree to rounding.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from attunet_jax.errors import BadArguments
from attunet_jax.ops import conv
from attunet_jax.ops.recompute import Deferred

CONVOLUTIONS = ("compiler", "channels_last", "matrix", "onednn")
COMPILER, CHANNELS_LAST, MATRIX, ONEDNN = CONVOLUTIONS
AUTO = "auto"
GPUS = ("gpu", "cuda")  # the platform of a device, and that of one described to XLA
# Names of forms in `ops/cpu`, separated by commas, that are to be left out: the plain
# form computes instead (see ops/cpu/README.md).
SWITCH = "ATTUNET_CPU_FORMS_OFF"


def choose_convolution(backend: str, device_count: int, dtype: str) -> str:
    """Returns the fastest of CONVOLUTIONS for a backend, a mesh's size and a type."""
    if backend in GPUS:
        return CHANNELS_LAST
    if backend != "cpu" or device_count != 1:
        return COMPILER
    return ONEDNN if onednn_available(dtype) else MATRIX


def onednn_available(dtype: str) -> bool:
    """Whether "onednn" is present, right and fast on this processor for `dtype`."""
    from attunet_jax.ops.cpu import onednn_probe

    return onednn_probe.available(dtype)


def conv3x3x3(
    x: jax.Array | Deferred, kernel: jax.Array, *, convolution: str = AUTO
) -> jax.Array:
    """`ops.conv.conv3x3x3`, computed by one of CONVOLUTIONS.

    A concatenation that is deferred is convolved part by part. "auto" picks by the
    default backend and the number of devices. Raises `BadArguments` for an unknown
    name.
    """
    if convolution == AUTO:
        convolution = choose_convolution(
            jax.default_backend(), jax.device_count(), str(kernel.dtype)
        )
    if convolution not in CONVOLUTIONS:
        raise BadArguments(
            f"convolution {convolution!r} is none of: {', '.join(CONVOLUTIONS)}"
        )
    if convolution in (COMPILER, CHANNELS_LAST):
        parts = x.parts() if isinstance(x, Deferred) else [x]
        return conv.conv3x3x3_of_concatenation(parts, kernel)
    from attunet_jax.ops.cpu import conv as cpu_conv

    if isinstance(x, Deferred):
        if switched_off("recompute"):
            x = x.array()
        else:
            return cpu_conv.conv3x3x3_of_deferred(
                x, kernel, convolution, apart=not switched_off("conv_upsampled")
            )
    return cpu_conv.conv3x3x3(x, kernel, convolution)


def concatenate(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    """`jnp.concatenate` of arrays of one type.

    2-byte floats go through `ops/cpu/bf16_bits`, which picks the CPU's form when the
    program is lowered for a CPU, and the plain form elsewhere.
    """
    if arrays[0].dtype.itemsize != 2 or switched_off("bf16_bits"):
        return jnp.concatenate(arrays, axis)
    from attunet_jax.ops.cpu import bf16_bits

    return bf16_bits.concatenate(tuple(arrays), axis)


def switched_off(form: str) -> bool:
    """Whether the environment asks for the plain form instead of one of `ops/cpu`."""
    return form in os.environ.get(SWITCH, "").split(",")


def compiler_options(convolution: str) -> dict[str, str | bool]:
    """Returns what XLA must be told when it compiles a program with `convolution`."""
    if convolution == CHANNELS_LAST:
        return {"xla_gpu_force_conv_nhwc": True}
    if convolution != ONEDNN:
        return {}
    from attunet_jax.ops.cpu import conv_onednn

    return conv_onednn.compiler_options()


def compiled_at_every_start(convolution: str) -> bool:
    """Whether programs with `convolution` cannot be kept in the compilation cache.

    XLA cannot serialise oneDNN's calls.
    """
    return convolution == ONEDNN


@contextmanager
def compilation_cache(convolution: str) -> Iterator[None]:
    """Switches writing to the cache off for what cannot be kept."""
    if not compiled_at_every_start(convolution):
        yield
        return
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)
