"""Checks what JAX finds on this machine before a program makes anything."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attunet_jax.errors import BadArguments, one_line

INSTALL = "make install ACCELERATOR=cuda13 (or cuda12, tpu)"


def check_devices() -> None:
    """Starts JAX's backend; prints a line where there is a GPU that it cannot use.

    With several processes it is called after they joined. Raises `BadArguments` where
    JAX cannot use what JAX_PLATFORMS asks for, or computes in float64.
    """
    import jax  # late: the programs' --help needs none

    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise BadArguments(
            "JAX_ENABLE_X64 is on: networks are trained and used in float32; unset it"
        )
    requested = os.environ.get("JAX_PLATFORMS", "")
    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        raise BadArguments(
            f"JAX_PLATFORMS={requested}: this JAX cannot use it here "
            f"({one_line(error)[:160]}); unset it, or {INSTALL}"
        ) from None
    except AssertionError:  # JAX's word for cuda where no driver shows a GPU
        raise BadArguments(
            f"JAX_PLATFORMS={requested}: no GPU can be seen here: unset it, or see "
            "what nvidia-smi says (a container needs --gpus all)"
        ) from None
    if backend == "cpu" and not requested and (gpu := unused_gpu()):
        print(
            f"note: this machine has a GPU ({gpu}) that this JAX cannot use, so the "
            f"CPU computes: {INSTALL}; JAX_PLATFORMS=cpu means the CPU",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def memory_is_enough() -> Iterator[None]:
    """Turns what a device without memory left raises within into a `BadArguments`."""
    try:
        yield
    except RuntimeError as error:  # JAX's, for the compiler and for a step
        text = one_line(error)
        if not text.startswith("RESOURCE_EXHAUSTED"):
            raise
        size = re.search(r"allocat\w+ ([\d.]+ ?\w+)", text)
        asked = f" (it was asked for {size[1]})" if size else ""
        raise BadArguments(
            f"the memory of a device is too small for this run{asked}: a smaller "
            "--config.data.crop_shape, read_shape or batch_size, "
            "--config.model.remat=True, or --config.mesh.spatial=2 on two devices; "
            "--dry_run says what fits"
        ) from error


def unused_gpu() -> str | None:
    """Names an NVIDIA GPU that this shell may use, if there is one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    if command := shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run(
                [command, "-L"], capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            listed = None
        for line in listed.stdout.splitlines() if listed else ():
            if line.startswith("GPU "):
                return line.partition(": ")[2].partition(" (UUID")[0] or line
    return "/dev/nvidia0" if Path("/dev/nvidia0").exists() else None
