"""Things to run in; the seconds that each took, in alternating rounds, out."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# (number of calls) -> seconds that they took together, finished to the last byte.
Runner = Callable[[int], float]
# A round lasts at least this long: shorter things are called several times in it.
LEAST_ROUND_S = 0.2


@dataclass(frozen=True)
class Series:
    """Seconds of one call in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third, ends included; half of the rounds lie between them."""
        return quartiles(self.seconds)

    def over(self, other: "Series") -> "Series":
        """Round by round, this one's seconds divided by the other's."""
        return Series(
            tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True))
        )


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def alternating(
    runners: Mapping[str, Runner],
    rounds: int,
    leave_out: Callable[[str, Exception], bool] = lambda name, error: False,
) -> dict[str, Series]:
    """Every runner once a round, after a call each that only says how long it takes.

    Each round begins with another runner, so that none always follows the same one:
    what slows the machine for a while slows all of them. A runner that raises is left
    out of the result where `leave_out(name, error)`; the others go on.
    """
    names, calls = list(runners), {}
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def run(name: str, count: int) -> float | None:
        try:
            return runners[name](count) / count
        except Exception as error:
            if not leave_out(name, error):
                raise
            names.remove(name)
            del seconds[name]
            return None

    for name in list(names):
        if (took := run(name, 1)) is not None:
            calls[name] = max(1, math.ceil(LEAST_ROUND_S / max(took, 1e-6)))
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if (took := run(name, calls[name])) is not None:
                seconds[name].append(took)
    return {name: Series(tuple(values)) for name, values in seconds.items()}


def timed(call: Callable[[], object]) -> Runner:
    """A runner of a function that returns when its work is finished."""

    def run(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - began

    return run


def warmed(runner: Runner) -> Runner:
    """One that makes a call before those it measures.

    For rounds among others: while those run, the caches fill with their data, and a
    virtual machine's host may take freed memory back, whose next use is slow. Steps of
    a training follow each other.
    """

    def run(calls: int) -> float:
        runner(1)
        return runner(calls)

    return run
