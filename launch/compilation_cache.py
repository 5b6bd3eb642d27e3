"""What XLA compiled is kept on disk, so that the next start of a program finds it.

In `~/.cache/attunet_jax/xla` (or under `XDG_CACHE_HOME`), a folder for each kind of
processor: programs for CPUs hold its instructions, and a home folder may be shared by
many machines. `JAX_COMPILATION_CACHE_DIR` names another place;
`JAX_ENABLE_COMPILATION_CACHE=false` does without. The folder can be removed.
"""

import hashlib
import os
import platform
import warnings
from pathlib import Path


def keep_compiled() -> None:
    """Sets JAX's own variables, so it must come before JAX is imported."""
    # Programs with oneDNN's convolution in them cannot be kept; nothing else fails so.
    warnings.filterwarnings(
        "ignore", "Error writing persistent compilation cache entry.*bad_alloc"
    )
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "attunet_jax" / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compile every time
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def _processor() -> str:
    """Architecture and a digest of the instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        has = next(x for x in lines if x.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        has = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(has.encode()).hexdigest()[:12]}"
