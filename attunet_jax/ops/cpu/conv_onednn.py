"""3x3x3 convolution and matrix product by oneDNN, which jaxlib's Linux wheels contain.

From jaxlib 0.11 on XLA itself rewrites a plain convolution where the program is
compiled with `compiler_options()`. jaxlib 0.10.2 accepts that option and ignores it:
there the custom call is written by hand. The hand-written part goes with Python 3.11.

Nothing depends on oneDNN: `onednn_probe.available()` tries both in another process.
"""

import json
from importlib import metadata

import jax
import jax.numpy as jnp

from attunet_jax.ops import conv
from attunet_jax.ops.cpu import conv_matmul

OPTION = "xla_cpu_experimental_onednn_custom_call"
# The meaning of a call's configuration has changed between releases under one name.
HAND_WRITTEN = metadata.version("jaxlib") == "0.10.2"
# How XLA names oneDNN's operations in a compiled program.
CONVOLUTION, MATMUL = "__onednn$convolution", "__onednn$matmul"
_VOLUME = {"batch_dim": "0", "spatial_dims": ["1", "2", "3"], "feature_dim": "4"}


def compiler_options() -> dict[str, str | bool]:
    """Returns XLA's options for compiling a program with these operations."""
    return {} if HAND_WRITTEN else {OPTION: True}


def conv3x3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`ops.conv.conv3x3x3` in float32 or bfloat16; no gradient rule of its own."""
    if not HAND_WRITTEN:
        return conv.conv3x3x3(x, kernel)
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
    return _call(CONVOLUTION, y, {"onednn_conv_config": config})(x, kernel)


def matmul_transpose_a(a: jax.Array, b: jax.Array) -> jax.Array:
    """a [N, A] transposed times b [N, B] of the same type -> float32 [A, B]."""
    if not HAND_WRITTEN:
        return conv_matmul.matmul_transpose_a(a, b)
    y = jax.ShapeDtypeStruct((a.shape[1], b.shape[1]), jnp.float32)
    config = {"onednn_matmul_config": {"transpose_a": True}}
    return _call(MATMUL, y, config)(a, b)


def _call(name: str, result: jax.ShapeDtypeStruct, config: dict):
    return jax.ffi.ffi_call(
        name,
        result,
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
    )
