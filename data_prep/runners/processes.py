"""A function and the arguments of its calls in, results out as they come: processes.

They live no longer than the run. A run that is stopped ends them at once; where it is
killed they notice; and where one of them is killed that is said in one line.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from attunet_jax.errors import INTERRUPTED, BadData, Interrupted


def run_in_processes(
    function: Callable[..., Any],
    calls: Sequence[tuple],
    workers: int,
    output: Path,
    done: Callable[[int, Any], object],
    again: str = "goes on from here",
) -> None:
    """Calls `done(number of the call, result)` here, in the order of finishing.

    `again`: what the same command does after a worker was killed.

    Raises what a call raises, and `BadData` naming `output` where a process dies.
    """
    # Spawned, not forked: a forked copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(calls)), context, initializer=_follow_parent
    ) as pool:
        try:
            # Workers keep the mask they begin with: signals are for the parent alone.
            before = signal.pthread_sigmask(
                signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
            )
            try:
                futures = {pool.submit(function, *c): i for i, c in enumerate(calls)}
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException as error:
            for process in list((pool._processes or {}).values()):
                process.kill()
            if isinstance(error, BrokenProcessPool):
                raise BadData(
                    f"{output}: a worker was killed, most likely for want of memory; "
                    f"the same command with fewer --workers {again}"
                ) from None
            raise


def _follow_parent() -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A worker of a killed parent would wait for its next call for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(INTERRUPTED)


class _Stopped(KeyboardInterrupt):
    """Not an `Exception`: those of a single case are caught, by libraries as well."""


def stoppable(program: Callable[[], int | None]) -> int | None:
    """Runs it; raises `Interrupted` where a scheduler asks it to end by SIGTERM."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        return program()
    except _Stopped as stopped:
        raise Interrupted(str(stopped)) from None


def _stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would come amid leaving
    raise _Stopped(
        f"{signal.Signals(number).name}: stopped; the same command goes on from here"
    )


def peak_bytes(*, of_children: bool) -> int:
    """Most memory that this process, or the largest that it started, ever had."""
    who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit
