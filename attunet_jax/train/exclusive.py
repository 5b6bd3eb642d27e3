"""One training at a time in a working folder: the second is told of the first.

Two would wait for each other inside a save, or each remove the other's checkpoints.
"""

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO

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
