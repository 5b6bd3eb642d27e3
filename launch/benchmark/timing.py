"""Times functions in alternating rounds: a slow phase of the machine affects all."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# (number of calls) -> seconds of all of them together, with their results computed.
Runner = Callable[[int], float]
# A round lasts at least this long: shorter functions are called several times in it.
MIN_ROUND_S = 0.2


@dataclass(frozen=True)
class Series:
    """Seconds of one call in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.seconds)

    def over(self, other: "Series") -> "Series":
        """Returns the ratio of this series to `other`, round by round."""
        return Series(
            tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True))
        )


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """Returns the first and the third quartile, both ends included."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def alternating(
    runners: Mapping[str, Runner],
    rounds: int,
    skip: Callable[[str, Exception], bool] = lambda name, error: False,
) -> dict[str, Series]:
    """Runs every runner once a round and returns the seconds of each.

    One call of each before the first round determines how many calls a round has. Each
    round begins with another runner, so that none always follows the same one. A runner
    that raises is dropped if `skip(name, error)` is true, else the error is raised.
    """
    names, calls = list(runners), {}
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def run(name: str, count: int) -> float | None:
        try:
            return runners[name](count) / count
        except Exception as error:
            if not skip(name, error):
                raise
            names.remove(name)
            del seconds[name]
            return None

    for name in list(names):
        if (took := run(name, 1)) is not None:
            calls[name] = max(1, math.ceil(MIN_ROUND_S / max(took, 1e-6)))
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if (took := run(name, calls[name])) is not None:
                seconds[name].append(took)
    return {name: Series(tuple(values)) for name, values in seconds.items()}


def timed(call: Callable[[], object]) -> Runner:
    """Returns a runner of a function that returns when its work is finished."""

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return run


def with_warmup(runner: Runner) -> Runner:
    """Returns a runner that makes one untimed call before those it times.

    Other runners fill the caches with their data in between, and the host of a virtual
    machine may take freed memory back. In a training, steps follow each other.
    """

    def run(calls: int) -> float:
        runner(1)
        return runner(calls)

    return run
