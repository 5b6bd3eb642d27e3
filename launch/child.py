"""Runs another program of the project and passes signals on to it."""

import os
import subprocess
import sys
from collections.abc import Sequence

from attunet_jax import interrupts
from attunet_jax.errors import INTERRUPTED

# Becomes the command, after asking Linux to send SIGTERM when the parent dies. In a
# Python of its own: code between fork and exec may stand still where threads are.
_BECOME = """
import ctypes, os, signal, sys
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(75)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"error: {sys.argv[2]}: cannot be started ({error.strerror})")
"""


def run_program(command: Sequence[str]) -> None:
    """Runs `command` to its end; ends this program with its status where it fails.

    A signal reaches both: the program then ends in its own way, and this one after it.
    Where this one is killed, the other gets SIGTERM.
    """
    words = [sys.executable, "-I", "-c", _BECOME, str(os.getpid()), *command]
    with subprocess.Popen(words) as process:
        with interrupts.deferred(
            on_signal=process.send_signal, second_ends=False
        ) as stop:
            status = process.wait()
    if status in (0, INTERRUPTED) or status < 0:
        stop.check()
    if status:
        raise SystemExit(status if status > 0 else 128 - status)


def python(module: str) -> list[str]:
    """Returns the command for a module of the project, in this same Python."""
    return [sys.executable, "-m", module]
