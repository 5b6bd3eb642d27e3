"""3x3x3 convolution and matrix product of oneDNN inside jaxlib: arrays in, array out.

jaxlib's wheels for Linux on x86-64 register them as XLA custom calls, but nothing in
JAX emits or documents them, and any release may drop them. So nothing may depend on
them: `available()` knows the releases in which they were tried, calls them there and
compares what comes back. They stand here for the time that they save on CPUs
(docs/benchmarks.md).
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
_CONVOLUTION, _MATMUL = "__onednn$convolution", "__onednn$matmul"
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
    y = jax.ShapeDtypeStruct((*x.shape[:4], kernel.shape[4]), x.dtype)
    return _call(_CONVOLUTION, y, {"onednn_conv_config": config})(x, kernel)


def products_summed(a: jax.Array, b: jax.Array) -> jax.Array:
    """a [K, M] transposed times b [K, N] of the same type -> float32 [M, N]."""
    y = jax.ShapeDtypeStruct((a.shape[1], b.shape[1]), jnp.float32)
    config = {"onednn_matmul_config": {"transpose_a": True}}
    return _call(_MATMUL, y, config)(a, b)


def _call(name: str, result: jax.ShapeDtypeStruct, config: dict):
    return jax.ffi.ffi_call(
        name,
        result,
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
    )


@functools.cache
def available(dtype: str) -> bool:
    """Whether both are there, right and fast in `dtype`: tried on small arrays."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if not metadata.version("jaxlib").startswith(tuple(f"{v}." for v in _TRIED_JAXLIB)):
        return False
    if dtype != "float32" and not _multiplies_bfloat16():
        return False  # oneDNN would do it number by number
    sizes = ((1, 1, 16), (2, 16, 8), (1, 24, 40))
    try:
        return all(_right(*each, dtype) for each in sizes) and _sums_right(dtype)
    except Exception:  # whatever a jaxlib without it, or with another one, raises
        return False


def _multiplies_bfloat16() -> bool:
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def _right(batch: int, channels: int, outputs: int, dtype: str) -> bool:
    x, kernel = _draw(dtype, (batch, 3, 5, 6, channels), (3, 3, 3, channels, outputs))
    found = _on_cpu(conv3x3x3, x, kernel)
    x, kernel = (np.asarray(a, np.float64) for a in (x, kernel))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    expected = np.einsum("bdhwcxyz,xyzco->bdhwo", windows, kernel)
    return _near(found, expected, 1e-5 if dtype == "float32" else 2**-7)


def _sums_right(dtype: str) -> bool:
    a, b = _draw(dtype, (30, 18), (30, 6))
    found = _on_cpu(products_summed, a, b)
    expected = np.asarray(a, np.float64).T @ np.asarray(b, np.float64)
    return _near(found, expected, 1e-5)  # summed in float32 from either type


def _draw(dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    drawn = (random.standard_normal(shape, np.float32) for shape in shapes)
    return [a.astype(jnp.dtype(dtype)) for a in drawn]


def _on_cpu(function, *arrays: np.ndarray) -> np.ndarray:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        # A function of its own: jit would keep what a replaced one had compiled.
        return np.asarray(jax.jit(lambda *each: function(*each))(*arrays), np.float64)


def _near(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())
