"""One training at a time in a working folder: the second is told of the first.

Two would wait for each other inside a save, or each remove the other's checkpoints.

What a run ran on, for its folder: versions, devices, source commit, command.
"""

import fcntl
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import jax

from attunet_jax.errors import BadArguments

# What was just killed may take a moment to end.
PATIENCE_S = 5.0


class Exclusive:
    """Holds `workdir/.lock` until `close` or the end of the process, however it ends.

    Raises `BadArguments` where another process holds it. File systems without locks
    are gone on without.
    """

    def __init__(self, workdir: Path) -> None:
        self._file = (workdir / ".lock").open("a+", encoding="utf-8")
        try:
            _lock(self._file, workdir)
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lock(file: IO[str], workdir: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                file.seek(0)
                who = file.read(200) or "another process"
                raise BadArguments(
                    f"{workdir}: {who} is training here: wait until it has ended, or "
                    "use another --workdir"
                ) from None
            time.sleep(0.1)
        except OSError:
            return


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
    """Returns the checkout's commit, with "+" when files differ; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("ATTUNET_JAX_COMMIT") or None  # a container has no .git


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
