"""Sends a few numbers of each process with every step; all receive them steps later.

They are read when their step is done, so nothing waits for them. From the same numbers
all processes decide the same: at which step to stop, and who was late.
"""

import signal
from collections import deque
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from attunet_jax.distributed.mesh import gather_from_processes


@dataclass(frozen=True)
class HostStatus:
    """What the processes sent with one step; an entry for each process."""

    step: int
    signals: tuple[int, ...]  # number of the signal that asks it to stop; 0 is none
    step_s: tuple[float, ...]  # since the step before, without pauses
    own_s: tuple[float, ...]  # the part of it not spent waiting for devices

    def stop_request(self) -> tuple[int, str] | None:
        """The first process that was asked to stop, and the signal's name."""
        for process, number in enumerate(self.signals):
            if number:
                return process, signal.Signals(number).name
        return None


class StepExchange:
    """Every process sends and receives at the same steps."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._single = jax.process_count() == 1
        self._in_flight: deque[tuple[int, jax.Array | np.ndarray]] = deque()

    def send(self, step: int, number: int, step_s: float, own_s: float) -> None:
        """Sends the signal's number and the step's times; waits for nothing."""
        values = np.array([number, step_s, own_s], np.float32)
        rows = (
            values[None] if self._single else gather_from_processes(values, self._mesh)
        )
        self._in_flight.append((step, rows))

    def receive(self, lag: int) -> HostStatus | None:
        """The oldest status if more than `lag` are in flight.

        A single process receives its own at once.
        """
        if len(self._in_flight) <= (0 if self._single else lag):
            return None
        step, rows = self._in_flight.popleft()
        numbers, step_s, own_s = np.asarray(rows).T.tolist()
        return HostStatus(step, tuple(map(int, numbers)), tuple(step_s), tuple(own_s))
