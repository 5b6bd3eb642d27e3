"""A run's folder: its lock, config.json and environment.json."""

import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import jax

from attunet_jax.errors import BadArguments
from attunet_jax.files import write_text

# A process that was just killed may take a moment to end.
LOCK_PATIENCE_S = 5.0


class WorkdirLock:
    """Holds `workdir/.lock` until `close` or the end of the process, however it ends.

    Two trainings in one folder would remove each other's checkpoints. Raises
    `BadArguments` if another process holds the lock. A file system without locks is
    used without one.
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
    until = time.monotonic() + LOCK_PATIENCE_S
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


def describe_run(workdir: Path, run: dict[str, Any]) -> None:
    """Writes config.json, which holds `Experiment.run`, and environment.json."""
    here = environment() | {"convolution": run["convolution"]}
    for name, content in (("config", run), ("environment", here)):
        write_text(workdir / f"{name}.json", json.dumps(content, indent=2) + "\n")


PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment() -> dict[str, Any]:
    """What the run runs on: versions, devices, source commit, command."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(d.device_kind) for d in jax.devices()],
        "processes": jax.process_count(),
        "glibc_tunables": "GLIBC_TUNABLES" in os.environ,
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
