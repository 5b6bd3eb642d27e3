"""The loop's waits and pauses in; how fast it goes, and where its time goes, out."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import jax

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
