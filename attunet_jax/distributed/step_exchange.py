"""A few numbers of each process in, those of all processes out, some steps later.

Sent with every step and read when that step is done, so nothing waits for it. From the
same numbers all processes decide the same: at which step to stop, and who was late.
"""

import signal
from collections import deque
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from attunet_jax.distributed.mesh import from_every_process


@dataclass(frozen=True)
class Beat:
    """What the processes said with one step; an entry for each."""

    step: int
    signals: tuple[int, ...]  # number of the signal that asks it to stop; 0 is none
    step_s: tuple[float, ...]  # since the step before, pauses left out
    own_s: tuple[float, ...]  # of that, what it did not wait for its devices

    def who_stops(self) -> tuple[int, str] | None:
        """The first process that was asked to stop, and the signal's name."""
        for process, number in enumerate(self.signals):
            if number:
                return process, signal.Signals(number).name
        return None


class Pulse:
    """Sends and receives beats; every process does both at the same steps."""

    def __init__(self, mesh: Any) -> None:
        self._mesh = mesh
        self._alone = jax.process_count() == 1
        self._under_way: deque[tuple[int, Any]] = deque()

    def send(self, step: int, number: int, step_s: float, own_s: float) -> None:
        """With one process there is nothing to wait for: it comes back as it is."""
        values = np.array([number, step_s, own_s], np.float32)
        rows = values[None] if self._alone else from_every_process(values, self._mesh)
        self._under_way.append((step, rows))

    def receive(self, lag: int) -> Beat | None:
        """The oldest beat, where more than `lag` are under way; none lags alone."""
        if len(self._under_way) <= (0 if self._alone else lag):
            return None
        step, rows = self._under_way.popleft()
        numbers, step_s, own_s = np.asarray(rows).T.tolist()
        return Beat(step, tuple(map(int, numbers)), tuple(step_s), tuple(own_s))
