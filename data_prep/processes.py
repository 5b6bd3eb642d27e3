"""A function and the arguments of its calls in, results out as they come: processes.

They live no longer than the run. A run that is stopped ends them at once; where it is
killed they notice; and where one of them is killed that is said in one line.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from attunet_jax.errors import INTERRUPTED, BadData


def run_in_processes(
    function: Callable[..., Any],
    calls: Sequence[tuple],
    workers: int,
    output: Path,
    done: Callable[[int, Any], object],
) -> None:
    """Calls `done(number of the call, result)` here, in the order of finishing.

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
                    "the same command with fewer --workers goes on from here"
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
