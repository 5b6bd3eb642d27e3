"""Says when a training goes wrong: numbers that are not finite, a dead network.

A state with such numbers is never saved (`checkpoint.py`), so the last good checkpoint
stays; the lines say how to go on from it.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from attunet_jax.checkpoint import Checkpoints
from attunet_jax.errors import BadArguments

# A gradient below this is none: Adam divides by its size, to which it adds 1e-8.
NO_GRADIENT = 1e-10


def check_metrics(metrics: Mapping[str, float]) -> str | None:
    """Names the metrics that are not finite; None where all are."""
    wrong = [
        f"the {name.replace('_', ' ')} is {value}"
        for name, value in metrics.items()
        if not math.isfinite(value)
    ]
    return " and ".join(wrong) or None


def diverged(
    problem: str, step: int, checkpoints: Checkpoints, workdir: Path, rate: float
) -> BadArguments:
    """The error that ends a run whose numbers are no longer finite.

    Waits until what was saved before is on disk; all processes call it.
    """
    checkpoints.wait()
    steps = checkpoints.steps()
    smaller = f"--config.optimizer.learning_rate={rate / 10:.3g}"
    if not steps:
        return BadArguments(
            f"{problem} at step {step}: start again with a smaller rate: {smaller}"
        )
    return BadArguments(
        f"{problem} at step {step}, of which nothing was saved; {workdir} is good up "
        f"to step {steps[-1]}: go on from there with a smaller rate: --workdir=ANOTHER "
        f"--config.init_from={workdir} {smaller}"
    )


class Health:
    """Notices a network that does not learn; says each thing once."""

    def __init__(self) -> None:
        self._dead_said = False
        self._empty_said = False
        self._empty = 0  # validations in a row whose Dice is 0

    def gradient(self, step: int, norm: float) -> str | None:
        """A line if the gradient is 0."""
        if self._dead_said or norm >= NO_GRADIENT:
            return None
        self._dead_said = True
        return (
            f"warning: the gradient is {norm:.2g} at step {step}: the network learns "
            "nothing; if that stays so, start again with a smaller "
            "--config.optimizer.learning_rate or another --config.seed"
        )

    def validation(
        self, step: int, scores: Mapping[str, float], *, last: bool
    ) -> str | None:
        """A line if no organ was found twice in a row, or some not at the end.

        `scores` is what `Validation.dice` returns.
        """
        missed = [organ for organ, dice in scores.items() if dice == 0]
        found = len(missed) < len(scores)
        if last and missed and found:
            return (
                f"warning: the validation Dice of {', '.join(missed)} is 0 at the last "
                f"step, {step}"
            )
        self._empty = 0 if found else self._empty + 1
        if self._empty_said or not (self._empty > 1 or (self._empty and last)):
            return None
        self._empty_said = True
        return (
            f"warning: the validation Dice is 0 at step {step}"
            + (f" and was at {self._empty - 1} before" if self._empty > 1 else "")
            + ": the network finds no organ; if that stays so, look at the data with "
            "data_prep.verify, or start again with another "
            "--config.optimizer.learning_rate"
        )
