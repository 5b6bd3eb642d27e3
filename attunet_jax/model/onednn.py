"""The 3x3x3 convolution of oneDNN inside jaxlib: volume and kernel in, volume out.

jaxlib's wheels for Linux on x86-64 register it as an XLA custom call, but nothing in
JAX emits or documents it, and any release may drop it. So nothing may depend on it:
`available()` knows the releases in which it was tried, calls it there and compares
what comes back. It stands here for the time it saves on CPUs (docs/benchmarks.md).
"""

import functools
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

# With another meaning behind its name a call could end the process: no guessing.
_TRIED_JAXLIB = ("0.10", "0.11")
_CALL = "__onednn$convolution"
_VOLUME = {"batch_dim": "0", "spatial_dims": ["1", "2", "3"], "feature_dim": "4"}


def conv3x3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, zero padding, no bias; it has no gradient of its own.

    x [B, D, H, W, C], kernel [3, 3, 3, C, O] -> [B, D, H, W, O], float32 or bfloat16.
    """
    layout = {
        "spatial_dims": ["0", "1", "2"],
        "input_feature_dim": "3",
        "output_feature_dim": "4",
        "shape": [str(size) for size in kernel.shape],
    }
    ones = ["1"] * 3
    config = {
        "dims": "5",
        "input": {"dims": "5", "data": _VOLUME},
        "kernel": {"dims": "5", "filter": layout},
        "output": {"dims": "5", "data": _VOLUME},
        "window": {
            "size": [str(size) for size in kernel.shape[:3]],
            "pad_left": ones,
            "pad_right": ones,
            "strides": ones,
            "window_dilations": ones,
        },
        "feature_groups": "1",
    }
    return jax.ffi.ffi_call(
        _CALL,
        jax.ShapeDtypeStruct((*x.shape[:4], kernel.shape[4]), x.dtype),
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )(x, kernel)


@functools.cache
def available(dtype: str) -> bool:
    """Whether the call is there, right and fast in `dtype`: tried on small volumes."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if not metadata.version("jaxlib").startswith(tuple(f"{v}." for v in _TRIED_JAXLIB)):
        return False
    if dtype != "float32" and not _multiplies_bfloat16():
        return False  # oneDNN would do it number by number
    sizes = ((1, 1, 16), (2, 16, 8), (1, 24, 40))
    try:
        return all(_right(*each, dtype) for each in sizes)
    except Exception:  # whatever a jaxlib without it, or with another one, raises
        return False


def _multiplies_bfloat16() -> bool:
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def _right(batch: int, channels: int, outputs: int, dtype: str) -> bool:
    random = np.random.default_rng(0)
    wide_x = random.standard_normal((batch, 3, 5, 6, channels), np.float32)
    wide_kernel = random.standard_normal((3, 3, 3, channels, outputs), np.float32)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        x, kernel = (jnp.asarray(a, dtype) for a in (wide_x, wide_kernel))
        found = np.asarray(
            jax.jit(lambda *both: conv3x3x3(*both))(x, kernel), np.float64
        )
    x, kernel = (np.asarray(a, np.float64) for a in (x, kernel))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    expected = np.einsum("bdhwcxyz,xyzco->bdhwo", windows, kernel)
    tolerance = 1e-5 if dtype == "float32" else 2**-7
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())
