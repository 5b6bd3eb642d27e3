"""Errors that a user can correct, and the exit status of each kind.

A message is one line: which file or field, what is wrong, what to do. Programs print
that line on stderr instead of a traceback.
"""

import io
import os
import sys
from collections.abc import Callable

DONE, BAD_ARGUMENTS, BAD_DATA, INTERRUPTED = 0, 2, 3, 75


class BadArguments(Exception):
    """A flag, a configuration field or a combination of them cannot be used."""

    status = BAD_ARGUMENTS


class BadData(Exception):
    """A file is not what it should be; the message begins with its path."""

    status = BAD_DATA


class Interrupted(Exception):
    """Stopped by a signal with everything saved: the same command continues."""

    status = INTERRUPTED


def exit_status(program: Callable[[], int | None]) -> int:
    """Runs `program`; prints a user's mistake in one line and returns the status."""
    # Late: they need this module.
    from attunet_jax.interrupts import ignore, wait_if_ending
    from attunet_jax.storage.names import with_urls

    # A name that the terminal cannot encode is shown.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

    def whole() -> int | None:
        try:
            return program()
        finally:
            wait_if_ending()  # what it raises may be of a child that was just killed

    try:
        status = whole() or DONE
        ignore()
        return status
    except (BadArguments, BadData, Interrupted) as error:
        print(f"error: {with_urls(one_line(error))}", file=sys.stderr, flush=True)
        return error.status
    except KeyboardInterrupt:
        print("interrupted: the same command continues from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) ended: no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        line = f"error: {place}{error.strerror or one_line(error)}"
        print(with_urls(line), file=sys.stderr)
        return BAD_DATA


def one_line(error: BaseException) -> str:
    """The message of an exception of ours or a library's, on a single line."""
    return " ".join(str(error).split()) or type(error).__name__
