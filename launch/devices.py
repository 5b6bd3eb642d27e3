"""Checks what JAX finds on this machine before a program makes anything."""

import os
import shutil
import subprocess
import sys
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
    if backend == "cpu" and not requested and (gpu := unused_gpu()):
        print(
            f"note: this machine has a GPU ({gpu}) that this JAX cannot use, so the "
            f"CPU computes: {INSTALL}; JAX_PLATFORMS=cpu means the CPU",
            file=sys.stderr,
            flush=True,
        )


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
