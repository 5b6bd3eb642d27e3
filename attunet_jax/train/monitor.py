"""Watches a run: its speed, late processes, standstills, profiles and who stops it."""

import threading
import time
from collections import deque
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median

import jax
from jax.sharding import Mesh

from attunet_jax.checkpoint import Checkpoints
from attunet_jax.distributed.progress import PROGRESS, Progress
from attunet_jax.distributed.step_exchange import HostStatus, StepExchange
from attunet_jax.errors import BadArguments
from attunet_jax.interrupts import Deferral, name_of
from attunet_jax.storage.names import shown

# A step is reported if it takes so many times the median of those before it, and at
# least so many seconds.
STALL_FACTOR, STALL_MIN_S = 5.0, 0.5
# Number of steps in the median, and the fewest that make one.
MEDIAN_STEPS, MIN_STEPS = 51, 5
# What the loop spends time on, as a user is told.
DOING = {
    "data": "waits for data",
    "devices": "waits for its devices",
    "validation": "validates",
    "saving": "saves",
    "pause": "draws or writes a profile",
}
# That of it which belongs to no step.
PAUSES = ("validation", "saving", "pause")


class Monitor:
    """Times the steps of a run and finds late processes; a context manager."""

    def __init__(self, *, step: int, batch_size: int, hang_limit_s: float) -> None:
        self.timer = StepTimer(step=step, batch_size=batch_size)
        self._stragglers = StragglerDetector()
        self._standstills = Standstills()
        self._begins = step, hang_limit_s
        self._open = ExitStack()

    def __enter__(self) -> "Monitor":
        self._standstills.start()
        self._open.enter_context(PROGRESS.steps(*self._begins))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._standstills.stop()

    def begin_step(self, step: int) -> None:
        """Before a step is dispatched: whoever hangs is found by it."""
        PROGRESS.begin_step(step)

    def step_times(self) -> tuple[float, float]:
        """At every step: (step_s, own_s) of this process, see `HostStatus`."""
        step_s, own_s = self.timer.step_times()
        return step_s, max(own_s, self._standstills.longest_s())

    def straggler(self, status: HostStatus | None, hosts: list[str]) -> str | None:
        """Describes a step that took far longer than those before it, if it did."""
        return self._stragglers.check(status, hosts) if status else None


class StepTimer:
    """Tells how fast the steps of one process are, by the times of its `Progress`.

    Time spent in one of PAUSES belongs to no step.
    """

    def __init__(
        self, *, step: int, batch_size: int, progress: Progress = PROGRESS
    ) -> None:
        self._progress = progress
        self._batch_size = batch_size
        self._mark_step = step
        self._at_mark = self._at_step = progress.spent_s()

    def spending(self, kind: str) -> AbstractContextManager[None]:
        """Within, the loop does what `DOING` says of this `kind`."""
        return self._progress.doing(DOING[kind], pause=kind in PAUSES)

    def step_times(self) -> tuple[float, float]:
        """At every step: (seconds since the last, those not waiting for devices)."""
        before, self._at_step = self._at_step, self._progress.spent_s()
        since = _difference(self._at_step, before)
        busy = _without_pauses(since)
        return busy, busy - since.get(DOING["devices"], 0.0)

    def speed(self, step: int) -> dict[str, float]:
        """Means over the steps since the last call, and the devices' memory."""
        before, self._at_mark = self._at_mark, self._progress.spent_s()
        since = _difference(self._at_mark, before)
        busy = max(_without_pauses(since), 1e-9)
        count = max(step - self._mark_step, 1)
        self._mark_step = step
        # The remaining time includes pauses: there will be as many.
        self._whole_step_s = sum(since.values()) / count
        return {
            "seconds_per_step": busy / count,
            "steps_per_second": count / busy,
            "cases_per_second": count * self._batch_size / busy,
            "data_wait_share": min(since.get(DOING["data"], 0.0) / busy, 1.0),
        } | device_memory()

    def remaining_s(self, steps: int) -> float:
        """Until step `steps`, at the pace between the last two calls of `speed`."""
        return self._whole_step_s * (steps - self._mark_step)


def _difference(now: dict[str, float], then: dict[str, float]) -> dict[str, float]:
    return {what: seconds - then.get(what, 0.0) for what, seconds in now.items()}


def _without_pauses(spent_s: dict[str, float]) -> float:
    return sum(spent_s.values()) - sum(spent_s.get(DOING[k], 0.0) for k in PAUSES)


def device_memory() -> dict[str, float]:
    """Peak memory of this process's fullest device, in bytes and as a share.

    Empty where the backend does not report it (CPU).
    """
    reported = [s for d in jax.local_devices() if (s := d.memory_stats())]
    peaks = [(s["peak_bytes_in_use"], s.get("bytes_limit", 0)) for s in reported]
    if not peaks:
        return {}
    peak, limit = max(peaks)
    share = {"device_memory_share": peak / limit} if limit else {}
    return {"device_memory_peak_bytes": float(peak)} | share


class StragglerDetector:
    """Compares the times of each step with the median of the steps before."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=MEDIAN_STEPS)

    def check(self, status: HostStatus, hosts: list[str]) -> str | None:
        """Names a late process in one line.

        All processes wait for the slowest: it is the one with the largest `own_s`.
        """
        own_s = status.own_s
        # A standstill in a pause (a save waits for all) is in `own_s` alone.
        longest = max(*status.step_s, *own_s)
        usual = median(self._before) if len(self._before) >= MIN_STEPS else None
        self._before.append(longest)
        if usual is None or longest <= max(STALL_FACTOR * usual, STALL_MIN_S):
            return None
        late = max(range(len(own_s)), key=own_s.__getitem__)
        if own_s[late] < longest / 2:
            return None  # all waited for their devices: as after each save
        return (
            f"stall: step {status.step} took {longest:.1f} s (median {usual:.2f} s); "
            f"process {late} ({hosts[late]}) was late, {own_s[late]:.1f} s of it not "
            "in the devices"
        )


class Standstills:
    """A thread that notices when the whole process stood still.

    A frozen host or a stopped process does not see that in its own times: by its clock
    it waited for the devices, as the others did.
    """

    INTERVAL_S = 0.1

    def __init__(self) -> None:
        self._longest = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def longest_s(self) -> float:
        """The longest standstill since the last call."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(self.INTERVAL_S):
            now = time.monotonic()
            self._longest = max(self._longest, now - before - self.INTERVAL_S)
            before = now


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Parses "10:12" to (10, 12), first and last step. Raises `BadArguments`."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise BadArguments(
            f"--profile_steps={text} is not FIRST:LAST, two steps from 1 on"
        )
    return int(first), int(last)


class Profile:
    """Records the steps `first` to `last` of this process into `workdir/profile`.

    The files are for XProf or TensorBoard. Without `steps` nothing is recorded.
    """

    def __init__(self, workdir: Path, steps: tuple[int, int] | None) -> None:
        self._folder = workdir / "profile"
        self._steps = steps
        self._running = False

    def before(self, step: int) -> None:
        """Called before a step is dispatched; starts at once if the first is past."""
        if self._steps and not self._running and self._steps[0] <= step:
            if step <= self._steps[1]:
                jax.profiler.start_trace(self._folder)
                self._running = True

    def after(self, step: int, result: object) -> str | None:
        """Called after a step is dispatched; reports the folder when it is written."""
        if not (self._running and self._steps and step == self._steps[1]):
            return None
        first = self._steps[0]
        jax.block_until_ready(result)
        self.close()
        return (
            f"profile of steps {first} to {step}: tensorboard --logdir="
            f"{shown(self._folder)} (needs tensorboard-plugin-profile), or xprof"
        )

    def close(self) -> None:
        """Writes what was recorded so far."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._steps = False, None


class StopVote:
    """Decides at which step all processes stop, and exchanges their times with it."""

    def __init__(
        self, stop: Deferral, checkpoints: Checkpoints, mesh: Mesh, hosts: list[str]
    ) -> None:
        self._stop, self._checkpoints, self._hosts = stop, checkpoints, hosts
        self._exchange = StepExchange(mesh)
        self._status: HostStatus | None = None

    def send(self, step: int, step_s: float, own_s: float) -> None:
        """Sends this process's status with a step; waits for nothing."""
        self._exchange.send(step, self._stop.number, step_s, own_s)

    def receive(self, lag: int) -> HostStatus | None:
        """The status of all processes `lag` steps ago."""
        self._status = self._exchange.receive(lag)
        return self._status

    def reason(self, step: int) -> str | None:
        """Who stops the run after this step; the same in all processes."""
        if len(self._hosts) == 1:
            number = self._stop.number
            return name_of(number) if number else None
        if self._status and (request := self._status.stop_request()):
            process, name = request
            return f"{name} to process {process} ({self._hosts[process]})"
        return "the platform" if self._checkpoints.reached_preemption(step) else None
