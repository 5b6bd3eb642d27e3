"""How far this process is: its step, what it does, and how long that may take.

Noted by the training loop; read by `failure_detector`, which ends a job that hangs, and
by those who say where the time goes: `train/monitor.py` and `train/goodput.py`.
"""

import faulthandler
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import IO

# A step may take so many times the median of those before it.
MEDIANS = 20.0
# Number of steps in the median; with fewer than the second the longest serves.
MEDIAN_STEPS, MIN_STEPS = 51, 5
# What a process does where nothing else is noted: before, in and after its steps.
STARTS, STEPS, ENDS = "starting", "in a step", "ending"
# While the whole process was stopped it did nothing of its own.
STOPPED = "stopped"
# The first steps are only sent to the devices: none is waited for before this many.
KNOWN_FROM = 3
# A pause is no step: its first time it may take this long, as it may compile or copy;
# later so many limits of a step, or so many times the longest of its kind.
PAUSE_LIMIT_S = 3600.0
PAUSE_LIMITS, PAUSE_LONGEST = 6.0, 20.0


@dataclass(frozen=True)
class Report:
    """How far a process is; `idle_s` may be `limit_s`, then it makes no progress."""

    step: int | None = None  # the one that was begun last
    doing: str = STARTS
    idle_s: float = 0.0  # since a step or a pause began or ended
    limit_s: float = float("inf")

    @property
    def slack_s(self) -> float:
        """How much longer it may be idle; negative when it was too long."""
        return self.limit_s - self.idle_s


class Progress:
    """Written by the main thread and read by another, without locks.

    Before `steps` nothing is limited but pauses, as data may be of any size. All time
    is spent on something: `spent_s` adds up to the time since the beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step: int | None = None
        self._doing = STARTS
        self._since = clock()  # it does this
        self._spent_s: dict[str, float] = {}  # on what it did before
        self._stopped_s: dict[str, float] = {}  # and did not do, as it was stopped
        self._paused: str | None = None
        self._longest_s: dict[str, float] = {}  # of each kind of pause
        self._limit_s: float | None = None  # None: not in the steps
        self._mark = clock()
        self._began: float | None = None  # the step, without its pauses
        self._steps_s: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self.log: IO[str] | None = None  # for stacks; None: stderr

    @contextmanager
    def steps(self, step: int, hang_limit_s: float) -> Iterator[None]:
        """Within, steps after `step` are made, none longer than the limit."""
        self._step, self._began = step, None
        self._steps_s.clear()
        self._mark = self._turn_to(STEPS)
        self._limit_s = hang_limit_s
        try:
            yield
        finally:
            self._mark = self._turn_to(ENDS)
            self._limit_s = None

    def begin_step(self, step: int) -> None:
        now = self._clock()
        if self._began is not None:
            self._steps_s.append(now - self._began)
        self._step, self._began, self._mark = step, now, now

    @contextmanager
    def doing(self, what: str, *, pause: bool = False) -> Iterator[None]:
        """Within, it does `what`; a pause is part of no step, with its own limit."""
        before, began = self._doing, self._turn_to(what)
        pause = pause and self._paused is None
        if pause:
            self._mark, self._paused = began, what
        try:
            yield
        finally:
            now = self._turn_to(before)
            if pause:
                self._mark, self._paused = now, None
                longest_s = max(self._longest_s.get(what, 0.0), now - began)
                self._longest_s[what] = longest_s
                if self._began is not None:
                    self._began += now - began

    def start(self) -> None:
        """Begins again, where one process trains several runs."""
        self._turn_to(STARTS)

    def _turn_to(self, what: str) -> float:
        """From now on the process does `what`; returns when that is."""
        now = self._clock()
        spent_s = self._spent_s.get(self._doing, 0.0) + now - self._since
        self._spent_s[self._doing] = spent_s
        self._doing, self._since = what, now
        return now

    def spent_s(self) -> dict[str, float]:
        """Seconds spent on each thing that this process did, until now."""
        spent_s, now = dict(self._spent_s), self._clock()
        spent_s[self._doing] = spent_s.get(self._doing, 0.0) + now - self._since
        for what, seconds in tuple(self._stopped_s.items()):
            spent_s[what] = spent_s.get(what, 0.0) - seconds
            spent_s[STOPPED] = spent_s.get(STOPPED, 0.0) + seconds
        return spent_s

    def stood_still(self, seconds: float) -> None:
        """The whole process was stopped for so long: that is no time of its own."""
        self._mark += seconds
        what = self._doing
        self._stopped_s[what] = self._stopped_s.get(what, 0.0) + seconds

    def report(self) -> Report:
        limit_s = self._limit()
        return Report(self._step, self._doing, self._clock() - self._mark, limit_s)

    def _limit(self) -> float:
        if (pause := self._paused) is not None:
            if pause not in self._longest_s or self._limit_s is None:
                return max(PAUSE_LIMIT_S, PAUSE_LIMITS * (self._limit_s or 0.0))
            longest_s = self._longest_s[pause]
            return max(PAUSE_LIMITS * self._limit_s, PAUSE_LONGEST * longest_s)
        if self._limit_s is None:
            return float("inf")
        steps_s = tuple(self._steps_s)
        if len(steps_s) < KNOWN_FROM:
            return max(PAUSE_LIMIT_S, self._limit_s)
        usual = median(steps_s) if len(steps_s) >= MIN_STEPS else max(steps_s)
        return max(self._limit_s, MEDIANS * usual)

    def write_stacks(self, line: str, patience_s: float = 5.0) -> None:
        """Writes `line` and the Python stacks of all threads; never hangs itself."""
        log = self.log

        def write() -> None:
            try:
                file = 2 if log is None else log.fileno()
                os.write(
                    file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode()
                )
                faulthandler.dump_traceback(file, all_threads=True)
            except (OSError, ValueError):
                pass  # the disk is gone, or the log closed

        thread = threading.Thread(target=write, name="stacks", daemon=True)
        thread.start()
        thread.join(patience_s)


# This process's: there is one, as there is one main thread.
PROGRESS = Progress()
