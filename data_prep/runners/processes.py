"""Runs a function in worker processes.

Workers never outlive the program: it kills them when it is stopped, and they exit by
themselves when it is killed. A worker that is killed is reported in one line.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from attunet_jax import interrupts
from attunet_jax.errors import INTERRUPTED, BadData

# How soon a signal is heeded while all workers are busy.
POLL_S = 0.1


def run_in_processes(
    function: Callable[..., Any],
    calls: Sequence[tuple],
    workers: int,
    output: Path,
    on_result: Callable[[int, Any], object],
    rerun: str = "continues from here",
) -> None:
    """Calls `on_result(number of the call, result)` here, in the order of completion.

    `rerun` says, for the messages, what the same command does after a worker was killed
    or a signal came. Raises what a call raises, `Interrupted` soon after a signal, and
    `BadData` naming `output` where a worker dies.
    """
    # Spawned, not forked: a forked copy of a process with threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with (
        interrupts.deferred(second_ends=False) as stop,
        ProcessPoolExecutor(
            min(workers, len(calls)), context, initializer=_follow_parent
        ) as pool,
    ):
        try:
            # Workers inherit the mask: only the parent handles signals.
            before = signal.pthread_sigmask(
                signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
            )
            try:
                futures = {pool.submit(function, *c): i for i, c in enumerate(calls)}
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            pending = set(futures)
            while pending:
                done, pending = wait(pending, POLL_S, FIRST_COMPLETED)
                stop.check(f"the same command {rerun}")
                for future in done:
                    on_result(futures[future], future.result())
        except BaseException as error:
            for process in list((pool._processes or {}).values()):
                process.kill()
            if isinstance(error, BrokenProcessPool):
                raise BadData(
                    f"{output}: a worker was killed, most likely because memory ran "
                    f"out; the same command with fewer --workers {rerun}"
                ) from None
            raise


def _follow_parent() -> None:
    """Starts a thread that ends this worker when its parent has died."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # Without it a worker of a killed parent waits forever for its next call.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(INTERRUPTED)
