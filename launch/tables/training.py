"""Starts the trainings of a table one after another, and says how long all will take.

Each is a `launch.train` of its own: it may run in several processes and on any mesh,
the devices and their memory are free again before the next, and it is the command that
`--print_commands` hands out. Starting one takes some seconds.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from attunet_jax.errors import BadData, Interrupted
from attunet_jax.evaluate.evaluation_record import newest_step
from launch.child import run_program
from launch.tables.rows import Row, started_here
from launch.tables.standing import Standing

# How often the time left of all trainings is said.
SAID_EVERY_S = 120.0


@dataclass(frozen=True)
class Measured:
    """The pace of a training, and where it was measured."""

    step_s: float
    place: Path


def train_all(
    number: int,
    standings: Sequence[Standing],
    everything: Sequence[Row],
    launcher: str,
    look_again: Callable[[], None],
) -> None:
    """Trains what is missing of table `number`, in order.

    `everything` are rows whose runs may tell how long a step takes, `look_again` brings
    what trainings have written into their folders. Ends the program with the status of
    a training that fails.
    """
    for i, standing in enumerate(standings, start=1):
        row = standing.row
        which = f"training {i} of {len(standings)} of table {number}"
        print(f"\n== {which}: {row.name}", flush=True)
        left = _TimeLeft(standings[i - 1 :], everything, look_again)
        if text := left.text():
            print(text, flush=True)
        with left.said_meanwhile(which):
            run_program(started_here(row.train_command(launcher)))
        look_again()


def pace_of(row: Row, others: Sequence[Row]) -> Measured | None:
    """Returns the row's own pace, or that of the same network in another folder."""
    for candidate in (row, *(r for r in others if kind_of(r) == kind_of(row))):
        step_s = measured_step_s(candidate.folder)
        if step_s is not None:
            return Measured(step_s, candidate.folder)
    return None


def measured_step_s(workdir: Path) -> float | None:
    """Returns the median of the seconds a step took, by RUN/metrics.jsonl."""
    from attunet_jax.train.metrics import read_rows  # late: it imports jax

    try:
        rows = read_rows(workdir / "metrics.jsonl")
    except OSError:
        return None
    found = [row["seconds_per_step"] for row in rows if "seconds_per_step" in row]
    # The first of a run are slower.
    return median(found[1:] or found) if found else None


def kind_of(row: Row) -> str:
    """Returns what decides how long a step takes: network, sizes, devices."""
    config = json.loads(row.config.to_json())
    data = {k: config["data"][k] for k in ("batch_size", "crop_shape", "read_shape")}
    return json.dumps([config["model"], config["mesh"], data, len(config["classes"])])


class _TimeLeft:
    """The time that a training and those after it will take."""

    def __init__(
        self,
        standings: Sequence[Standing],
        everything: Sequence[Row],
        look_again: Callable[[], None],
    ) -> None:
        self._standings, self._everything = standings, everything
        self._look_again = look_again

    def text(self) -> str:
        """Returns `4 trainings left: about 12:00 of steps`, or "" where none knows."""
        from attunet_jax.train.metrics import duration

        paces = [pace_of(s.row, self._everything) for s in self._standings]
        known = [pace.step_s for pace in paces if pace]
        if not known:
            return ""
        left_s = 0.0
        for standing, pace in zip(self._standings, paces, strict=True):
            steps = standing.steps - self._done(standing)
            left_s += steps * (pace.step_s if pace else max(known))
        trainings = f"{len(paces)} training" + ("s" if len(paces) > 1 else "")
        return f"{trainings} left: about {duration(left_s)} of steps"

    @contextmanager
    def said_meanwhile(self, which: str) -> Iterator[None]:
        ended = threading.Event()

        def say() -> None:
            while not ended.wait(SAID_EVERY_S):
                try:
                    self._look_again()
                except (BadData, Interrupted):
                    continue  # a bucket does not answer: later, perhaps
                if text := self.text():
                    print(f"{which}: {text}", flush=True)

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _done(self, standing: Standing) -> int:
        """Steps by the last line of the metrics: there are fewer checkpoints."""
        from attunet_jax.train.metrics import read_rows

        try:
            rows = read_rows(standing.row.folder / "metrics.jsonl")
        except OSError:
            rows = []
        there = rows[-1]["step"] if rows else newest_step(standing.row.folder) or 0
        return min(there, standing.steps)
