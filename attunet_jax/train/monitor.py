"""The loop's waits and pauses in; how fast it goes, and where its time goes, out.

`--profile_steps=10:12` in, a profile that XProf and TensorBoard open out.

SIGTERM and Ctrl-C in, a flag out that the loop reads between two steps.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import FrameType

import jax

from attunet_jax.errors import BadArguments

# A step is a stall where it takes so many times the median of those before, and
# long enough to be seen.
STALL_FACTOR, STALL_LEAST_S = 5.0, 0.5
# Steps that the median is over, and how few make no median yet.
REMEMBERED, FEWEST = 51, 5


class Pace:
    """Where the time of one process goes, from its first step on.

    `seconds()` of a pause (measuring, saving, profiling) belong to no step.
    """

    def __init__(
        self, *, step: int, batch_size: int, clock: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock or time.perf_counter
        self._batch_size = batch_size
        self._mark, self._mark_step = self._clock(), step
        self._spent = {"data": 0.0, "devices": 0.0, "pause": 0.0}
        self._at_mark = dict(self._spent)
        self._at_step = (self._mark, dict(self._spent))

    @contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Within, the loop waits for "data" or "devices", or makes a "pause"."""
        began = self._clock()
        try:
            yield
        finally:
            self._spent[what] += self._clock() - began

    def stepped(self) -> tuple[float, float]:
        """At every step: (seconds since the last, those not waiting for devices)."""
        (then, spent), now = self._at_step, self._clock()
        self._at_step = (now, dict(self._spent))
        whole = now - then - (self._spent["pause"] - spent["pause"])
        return whole, whole - (self._spent["devices"] - spent["devices"])

    def figures(self, step: int) -> dict[str, float]:
        """Of the steps since the last call."""
        now = self._clock()
        count = max(step - self._mark_step, 1)
        since = {k: v - self._at_mark[k] for k, v in self._spent.items()}
        busy = max(now - self._mark - since["pause"], 1e-9)
        # Time left counts the pauses too: they come again.
        self._whole_step_s = (now - self._mark) / count
        self._mark, self._mark_step = now, step
        self._at_mark = dict(self._spent)
        return {
            "seconds_per_step": busy / count,
            "steps_per_second": count / busy,
            "cases_per_second": count * self._batch_size / busy,
            "data_wait_share": min(since["data"] / busy, 1.0),
        } | device_memory()

    def left_s(self, steps: int) -> float:
        """Until the last step, as fast as between the last two calls of `figures`."""
        return self._whole_step_s * (steps - self._mark_step)


def device_memory() -> dict[str, float]:
    """Bytes at most in use on a device of this process so far, and their share of it.

    Empty where the backend does not tell (CPU).
    """
    told = [s for d in jax.local_devices() if (s := d.memory_stats())]
    peaks = [(s["peak_bytes_in_use"], s.get("bytes_limit", 0)) for s in told]
    if not peaks:
        return {}
    peak, limit = max(peaks)
    share = {"device_memory_share": peak / limit} if limit else {}
    return {"device_memory_peak_bytes": float(peak)} | share


class Stalls:
    """Step times in, a line where one stands out of those before."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=REMEMBERED)

    def notice(
        self,
        step: int,
        step_s: tuple[float, ...],
        own_s: tuple[float, ...],
        hosts: list[str],
    ) -> str | None:
        """`step_s` and `own_s` are of every process, see `pulse.Beat`.

        All processes wait for the slowest: it is the one whose time was its own.
        """
        # A standstill in a pause (a save waits for all) is in `own_s` alone.
        longest = max(*step_s, *own_s)
        usual = median(self._before) if len(self._before) >= FEWEST else None
        self._before.append(longest)
        if usual is None or longest <= max(STALL_FACTOR * usual, STALL_LEAST_S):
            return None
        late = max(range(len(own_s)), key=own_s.__getitem__)
        if own_s[late] < longest / 2:
            return None  # all waited for their devices: as after each save
        return (
            f"stall: step {step} took {longest:.1f} s (median {usual:.2f} s); process "
            f"{late} ({hosts[late]}) was late, {own_s[late]:.1f} s of it not in the "
            "devices"
        )


class Sleepless:
    """A thread that notices when this whole process stood still.

    A host that freezes, or a process that is stopped, does not know it: its clock
    says that it waited for the devices like all others.
    """

    INTERVAL_S = 0.1

    def __init__(self) -> None:
        self._worst = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> "Sleepless":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def worst_s(self) -> float:
        """The longest standstill since the last call."""
        worst, self._worst = self._worst, 0.0
        return worst

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self.INTERVAL_S):
            now = time.monotonic()
            self._worst = max(self._worst, now - before - self.INTERVAL_S)
            before = now


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """ "10:12" to (10, 12): first and last step. Raises `BadArguments`."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise BadArguments(
            f"--profile_steps={text} is not FIRST:LAST, two steps from 1 on"
        )
    return int(first), int(last)


class Profile:
    """Records the wanted steps of this process into `workdir/profile`.

    `wanted` None records nothing.
    """

    def __init__(self, workdir: Path, wanted: tuple[int, int] | None) -> None:
        self._folder = workdir / "profile"
        self._wanted = wanted
        self._running = False

    def before(self, step: int) -> None:
        """Before the step is sent off. One that was to begin before now begins here."""
        if self._wanted and not self._running and self._wanted[0] <= step:
            if step <= self._wanted[1]:
                jax.profiler.start_trace(self._folder)
                self._running = True

    def after(self, step: int, result: object) -> str | None:
        """After it is sent off; says where the profile lies once it is written."""
        if not (self._running and self._wanted and step == self._wanted[1]):
            return None
        first = self._wanted[0]
        jax.block_until_ready(result)
        self.close()
        return (
            f"profile of steps {first} to {step}: tensorboard --logdir="
            f"{self._folder} (needs tensorboard-plugin-profile), or xprof"
        )

    def close(self) -> None:
        """Writes what was recorded so far."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._wanted = False, None


class StopRequest:
    """A context manager; a second Ctrl-C acts as usual.

    A second SIGTERM does not: schedulers, launch scripts and containers pass it on,
    each of them once.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal; 0 is none
        self._before: dict[int, object] = {}

    @property
    def name(self) -> str | None:
        """The signal's name, where one has come."""
        return signal.Signals(self.number).name if self.number else None

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
