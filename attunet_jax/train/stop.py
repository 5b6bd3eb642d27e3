"""SIGTERM and Ctrl-C in, a flag out that the loop reads between two steps."""

import signal
from types import FrameType


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
