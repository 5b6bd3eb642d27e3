"""Tells what the time of a run went to, over all of its starts.

Goodput is the share of it spent in steps that count. The times of this start are those
of `Progress`; those of earlier starts stand in the rows of metrics.jsonl, the account
of the last row being that of the whole run until then:

    goodput          share in steps, of all time but that in which it did not run
    starts           how many starts of the run got as far as their first step
    unix_time_s      when the row was written
    time_<name>_s    the seconds, a field for each of NAMES
    clean_stop       1 in the last row of a start that ended with everything saved

Steps beyond the checkpoint that a start goes on from are lost: they were made, and are
made again. The time between the last row of a start and the next start is `down`, also
where a process did not get as far as its first step. After a clean stop it is
`not_running` and counts nowhere, unless the launcher itself started the run again.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attunet_jax.distributed.progress import PROGRESS, STARTS, STEPS, STOPPED, Progress
from attunet_jax.train.metrics import duration
from attunet_jax.train.monitor import DOING

# Names in rows, and in the words of the last line.
NAMES = {
    "steps": "steps",
    "lost_steps": "lost steps",
    "start": "start",
    "compilation": "compilation",
    "restoring": "restoring",
    "data": "waiting for data",
    "saving": "saving",
    "validation": "validation",
    "other": "other",
    "down": "down",
    "not_running": "not running",
}
# What `Progress` calls what a process does; all else is "other".
NAME_OF = {
    STEPS: "steps",
    DOING["devices"]: "steps",
    STARTS: "start",
    "compiles": "compilation",
    "restores": "restoring",
    DOING["data"]: "data",
    DOING["saving"]: "saving",
    DOING["validation"]: "validation",
    STOPPED: "down",
}
# A row with the account is written so often, where no other reason comes first: so
# much of the steps before a death may be named down instead of lost.
ROW_EVERY_S = 10.0
# Not 0 where the launcher started a run again: our own sets the first.
RESTARTS = ("ATTUNET_JAX_RESTARTS", "SLURM_RESTART_COUNT")

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Start:
    """When one start of a run began, and what its process had spent before."""

    unix_s: float
    spent_s: dict[str, float]


def begin(
    program_began_s: float | None,
    progress: Progress = PROGRESS,
    clock: Callable[[], float] = time.time,
) -> Start:
    """Begins a start now, or when the program did (Unix time) that is there for it."""
    progress.start()
    now, spent_s = clock(), progress.spent_s()
    began_s = now if program_began_s is None else min(program_began_s, now)
    spent_s[STARTS] = spent_s.get(STARTS, 0.0) - (now - began_s)
    return Start(began_s, spent_s)


class Goodput:
    """The account of a run that goes on at `step`; `rows` are its metrics so far."""

    def __init__(
        self,
        rows: Rows,
        step: int,
        start: Start,
        *,
        restarted: bool | None = None,
        progress: Progress = PROGRESS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if restarted is None:
            restarted = any(os.environ.get(name, "0") != "0" for name in RESTARTS)
        accounts = [row for row in rows if "goodput" in row]
        self._before_s = _carried(accounts, step, start, restarted)
        self._starts = 1 + (int(_number(accounts[-1], "starts")) if accounts else 0)
        self._start, self._progress, self._clock = start, progress, clock
        self._row_s = clock()

    def seconds(self) -> dict[str, float]:
        """What the run spent until now on each of NAMES."""
        total_s = dict(self._before_s)
        for what, seconds in self._progress.spent_s().items():
            own_s = seconds - self._start.spent_s.get(what, 0.0)
            total_s[NAME_OF.get(what, "other")] += own_s
        return total_s

    def is_due(self) -> bool:
        """Whether the last row is too old."""
        return self._clock() - self._row_s >= ROW_EVERY_S

    def row(self, *, clean_stop: bool = False) -> dict[str, float]:
        """The account as a row of metrics.jsonl."""
        self._row_s = self._clock()
        total_s = self.seconds()
        return {
            "goodput": share_in_steps(total_s),
            "starts": float(self._starts),
            "unix_time_s": self._row_s,
            **{f"time_{name}_s": round(total_s[name], 3) for name in NAMES},
        } | ({"clean_stop": 1.0} if clean_stop else {})

    def text(self) -> str:
        """goodput 93.1% of 20:15 in 5 starts: steps 18:51, lost steps 0:32, ..."""
        total_s = self.seconds()
        out_s = total_s.pop("not_running")
        parts = [f"{NAMES[k]} {duration(s)}" for k, s in total_s.items() if s >= 0.5]
        starts = f"{self._starts} start" + ("s" if self._starts > 1 else "")
        return (
            f"goodput {share_in_steps(total_s):.1%} of "
            f"{duration(sum(total_s.values()))} in {starts}: {', '.join(parts)}"
            + (f"; not running {duration(out_s)}" if out_s >= 0.5 else "")
        )


def share_in_steps(seconds: Mapping[str, float]) -> float:
    """The share of steps that count in all time in which the run was to run."""
    counted_s = sum(s for name, s in seconds.items() if name != "not_running")
    return seconds["steps"] / counted_s if counted_s > 0 else 0.0


def _carried(
    accounts: Rows, step: int, start: Start, restarted: bool
) -> dict[str, float]:
    """The seconds of the earlier starts, with what was lost from the last until now."""
    if not accounts:
        return dict.fromkeys(NAMES, 0.0)
    last = accounts[-1]
    total_s = {name: _number(last, f"time_{name}_s") for name in NAMES}
    lost_s = max(total_s["steps"] - _steps_s_at(accounts, step), 0.0)
    total_s["steps"] -= lost_s
    total_s["lost_steps"] += lost_s
    paused = "clean_stop" in last and not restarted
    gap_s = max(start.unix_s - _number(last, "unix_time_s"), 0.0)
    total_s["not_running" if paused else "down"] += gap_s
    return total_s


def _steps_s_at(accounts: Rows, step: int) -> float:
    """What had been spent in steps at `step`, between two rows in proportion."""
    key = "time_steps_s"
    points = [(row["step"], _number(row, key)) for row in accounts]
    low = max((p for p in points if p[0] <= step), default=(0, 0.0))
    high = min((p for p in points if p[0] > step), default=None)
    if high is None:
        return low[1]
    return low[1] + (high[1] - low[1]) * (step - low[0]) / (high[0] - low[0])


def _number(row: Mapping[str, Any], key: str) -> float:
    """The row's number, 0 where there is none: anybody may have edited the file."""
    value = row.get(key)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return 0.0
