"""What a run ran on, for its folder: versions, devices, source commit, command."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment() -> dict:
    """A JSON-able description."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(d.device_kind) for d in jax.devices()],
        "processes": jax.process_count(),
        "commit": source_commit(),
        "command": sys.argv,
    }


def source_commit() -> str | None:
    """The checkout's commit, with "+" when files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
