"""Runs a function in worker processes, as many as cores and memory allow.

Workers never outlive the program: it kills them when it is stopped, and they exit by
themselves when it is killed. A worker that is killed is reported in one line.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from attunet_jax import interrupts
from attunet_jax.errors import INTERRUPTED, BadData
from attunet_jax.storage import names

# How soon a signal is heeded while all workers are busy.
POLL_S = 0.1
_CGROUP = Path("/sys/fs/cgroup")


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
            min(workers, len(calls)),
            context,
            initializer=_follow_parent,
            initargs=(names.known(),),
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


def _follow_parent(urls: dict[str, str]) -> None:
    """Starts a thread that ends this worker when its parent has died.

    `urls` are those of `names.known`: what this worker says names them too.
    """
    for local, url in urls.items():
        names.stands_for(Path(local), url)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # Without it a worker of a killed parent waits forever for its next call.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(INTERRUPTED)


def choose_workers(
    program: str, process_bytes: int, tasks: int, requested: int | None
) -> int:
    """Returns the number of processes, and prints how much memory they need at most.

    At most one for each of `tasks`. `requested` is taken as it is; with None there are
    as many processes as cores, or fewer where the memory holds only these.
    """
    available = available_bytes()
    workers = requested or core_count()
    if available is not None and requested is None:
        workers = max(1, min(workers, available // process_bytes))
    workers = min(workers, tasks)
    print(
        f"{program}: memory: at most {process_bytes / 1e9:.2f} GB a process, "
        f"{workers * process_bytes / 1e9:.2f} GB for {workers}",
        file=sys.stderr,
    )
    if available is not None and workers * process_bytes > available:
        print(
            f"{program}: only {available / 1e9:.2f} GB are available: give fewer "
            "--workers",
            file=sys.stderr,
        )
    return workers


def available_bytes() -> int | None:
    """Memory that processes can still get here; None where the system does not say."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = int((_CGROUP / "memory.max").read_text())  # "max" means no limit
        found.append(limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(min(found), 0) if found else None


def core_count() -> int:
    """Cores this process may use; a scheduler may allow fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
