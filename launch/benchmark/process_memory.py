"""A command in; how long it ran and how much memory all its processes had, out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Short runs are looked at often, long ones seldom: looking takes time from them.
_SHARE_OF_RUN, _AT_MOST_EVERY_S = 0.05, 0.5


@dataclass(frozen=True)
class Watched:
    """`cpu_seconds`: of all its processes, what a busy machine changes least.
    `together_bytes`: most at one time of all processes, pages they share counted
    once. `largest_bytes`: most that a single process ever had."""

    status: int
    seconds: float
    cpu_seconds: float
    together_bytes: int
    largest_bytes: int
    out: str
    err: str


def watch(command: Sequence[str], log: Path) -> Watched:
    """Runs it to its end. Memory is sampled, so a short peak may be missed; that of a
    single process is the kernel's own high-water mark. Needs /proc."""
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    together = largest = 0
    with out.open("wb") as stdout, err.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            ended = 0
            while not ended:
                found = [_memory(pid) for pid in _family(process.pid)]
                together = max(together, sum(now for now, _ in found))
                largest = max(largest, *(most for _, most in found), 0)
                ran_s = time.perf_counter() - began
                time.sleep(min(0.01 + _SHARE_OF_RUN * ran_s, _AT_MOST_EVERY_S))
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # and all that it started
            process.wait()
            raise
        seconds = time.perf_counter() - began
    return Watched(
        process.returncode,
        seconds,
        usage.ru_utime + usage.ru_stime,
        together,
        largest,
        out.read_text(errors="replace"),
        err.read_text(errors="replace"),
    )


def available() -> bool:
    """Whether memory of processes can be seen here."""
    return sys.platform == "linux" and Path("/proc/self/status").exists()


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended while we looked
            continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """(now, its part of shared pages; most ever, all shared pages) in bytes."""
    place = Path(f"/proc/{pid}")
    now = _field(place / "smaps_rollup", "Pss")
    return now, _field(place / "status", "VmHWM")


def _field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    except OSError:  # it ended while we looked
        pass
    return 0
