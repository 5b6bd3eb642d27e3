"""Whether oneDNN's operations are right and fast here: tried in a child process.

What a jaxlib without them, or with others of the same name, does to a process cannot be
caught: a crash must not end a training. The answer is remembered for each jaxlib and
processor in `~/.cache/attunet_jax/onednn` (or under `XDG_CACHE_HOME`).

    python -m attunet_jax.ops.cpu.onednn_probe float32     # what the child runs
"""

import contextlib
import functools
import hashlib
import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from attunet_jax.files import cache_home, write_text

RIGHT, WRONG = "right", "wrong"
TIMEOUT_S = 300


@functools.cache
def available(dtype: str) -> bool:
    """Whether convolution and product are computed by oneDNN, and right, in `dtype`."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if dtype == "bfloat16":
        if {"avx512_bf16", "amx_bf16"}.isdisjoint(processor_flags()):
            return False  # oneDNN would compute it number by number
    elif dtype != "float32":
        return False
    remembered = _remembered(dtype)
    with contextlib.suppress(OSError):
        answer = remembered.read_text(encoding="utf-8").strip()
        if answer in (RIGHT, WRONG):
            return answer == RIGHT
    agrees = _child_agrees(dtype)
    if agrees is None:
        return False
    with contextlib.suppress(OSError):  # a home that cannot be written: ask every time
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_text(remembered, (RIGHT if agrees else WRONG) + "\n")
    return agrees


def processor_flags() -> set[str]:
    """Returns the instructions that this processor has, as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((x for x in lines if x.startswith("flags")), "").split())


def _remembered(dtype: str) -> Path:
    # Another version of these files asks again: it may call something else.
    here = Path(__file__)
    digest = hashlib.sha256(" ".join(sorted(processor_flags())).encode())
    for file in (here, here.with_name("conv_onednn.py")):
        digest.update(file.read_bytes())
    version = metadata.version("jaxlib")
    name = f"jaxlib-{version}-{digest.hexdigest()[:12]}-{dtype}"
    return cache_home() / "attunet_jax" / "onednn" / name


def _child_agrees(dtype: str) -> bool | None:
    """None where the child did not come to an answer: asked again at the next start."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    package = Path(__file__).resolve().parents[3]
    environment["PYTHONPATH"] = f"{package}:{os.environ.get('PYTHONPATH', '')}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "attunet_jax.ops.cpu.onednn_probe", dtype],
            capture_output=True,
            env=environment,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # By Ctrl-C at the terminal, or because memory ran out.
    if done.returncode in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL):
        return None
    return done.returncode == 0


def probe(dtype: str) -> bool:
    """Compiles and runs small operations in this process and compares with float64."""
    sizes = ((1, 1, 16), (2, 16, 8), (1, 24, 40))
    return all(_conv_right(*size, dtype) for size in sizes) and _product_right(dtype)


def _conv_right(batch: int, channels: int, outputs: int, dtype: str) -> bool:
    import numpy as np

    from attunet_jax.ops.cpu import conv_onednn

    x, kernel = _draw(dtype, (batch, 6, 16, 17, channels), (3, 3, 3, channels, outputs))
    found = _computed(conv_onednn.conv3x3x3, conv_onednn.CONVOLUTION, x, kernel)
    x, kernel = (np.asarray(a, np.float64) for a in (x, kernel))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    expected = np.einsum("bdhwcxyz,xyzco->bdhwo", windows, kernel)
    return _near(found, expected, 1e-5 if dtype == "float32" else 2**-7)


def _product_right(dtype: str) -> bool:
    import numpy as np

    from attunet_jax.ops.cpu import conv_onednn

    a, b = _draw(dtype, (30, 18), (30, 6))
    # Small ones XLA keeps for itself; what counts is that they are right.
    name = conv_onednn.MATMUL if conv_onednn.HAND_WRITTEN else ""
    found = _computed(conv_onednn.matmul_transpose_a, name, a, b)
    expected = np.asarray(a, np.float64).T @ np.asarray(b, np.float64)
    return _near(found, expected, 1e-5)  # summed in float32 from either type


def _draw(dtype: str, *shapes: tuple[int, ...]):
    import jax.numpy as jnp
    import numpy as np

    random = np.random.default_rng(0)
    drawn = (random.standard_normal(shape, np.float32) for shape in shapes)
    return [a.astype(jnp.dtype(dtype)) for a in drawn]


def _computed(function, name: str, *arrays):
    """The result in float64, or None where the program does not call `name`."""
    import jax
    import numpy as np

    from attunet_jax.ops.cpu import conv_onednn

    options = conv_onednn.compiler_options()
    compiled = jax.jit(function).lower(*arrays).compile(compiler_options=options)
    if name not in (compiled.as_text() or ""):
        return None
    return np.asarray(compiled(*arrays), np.float64)


def _near(found, expected, tolerance: float) -> bool:
    import numpy as np

    if found is None:
        return False
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


if __name__ == "__main__":
    sys.exit(0 if probe(sys.argv[1]) else 1)
