"""What the trainings of a table would cost: steps, hours and disk; trains nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attunet_jax.evaluate.evaluation_record import newest_step
from attunet_jax.files import temporary_folder
from attunet_jax.storage.names import shown
from attunet_jax.storage.run_folder import bytes_of_step
from launch.child import run_program
from launch.tables.rows import Row, started_here
from launch.tables.standing import Standing
from launch.tables.training import Measured, kind_of, measured_step_s, pace_of

# Steps that are trained where no run tells how long one takes.
TRIED_STEPS = 4


def cost_text(
    standings: Sequence[Standing], everything: Sequence[Row], launcher: str
) -> str:
    """Returns a line for each training, and their sum.

    Where no run of the same network is there, a few steps of it are trained in a
    temporary folder.
    """
    tried: dict[str, tuple[Measured, int]] = {}
    lines = [("training", "steps", "s/step", "hours", "disk MB", "measured in")]
    hours, disk, steps = 0.0, 0, 0
    for standing in standings:
        row = standing.row
        left = max(standing.steps - standing.done, 0)
        pace = pace_of(row, everything)
        size = _bytes_of_checkpoint(row, everything)
        if (pace is None or size is None) and left:
            if kind_of(row) not in tried:
                tried[kind_of(row)] = _tried(row, launcher)
            pace = pace or tried[kind_of(row)][0]
            size = size or tried[kind_of(row)][1]
        steps += left
        count = row.config.train.keep_latest + row.config.train.keep_best
        row_disk = (size or 0) * count
        disk += row_disk
        row_hours = left * pace.step_s / 3600 if pace else 0.0
        hours += row_hours
        lines.append(
            (
                row.name,
                f"{standing.done}/{standing.steps}",
                f"{pace.step_s:.3f}" if pace else "-",
                f"{row_hours:.2f}",
                f"{row_disk / 1e6:.1f}",
                shown(pace.place) if pace else "-",
            )
        )
    lines.append(("all", str(steps), "", f"{hours:.2f}", f"{disk / 1e6:.1f}", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join(
        "  ".join(x.ljust(n) for x, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return (
        f"{text}\n"
        f"Hours are of the steps that are left ({steps}), one training after another "
        "on these devices;\nvalidation, checkpoints and the evaluation of the test "
        "cases come on top. Disk: checkpoints that are kept.\n"
        "Dry run: nothing was trained or written."
    )


def _bytes_of_checkpoint(row: Row, others: Sequence[Row]) -> int | None:
    for candidate in (row, *(r for r in others if kind_of(r) == kind_of(row))):
        step = newest_step(candidate.folder)
        if step is not None:
            return bytes_of_step(candidate.folder, step)
    return None


def _tried(row: Row, launcher: str) -> tuple[Measured, int]:
    """Trains a few steps in a temporary folder: (pace, bytes of a checkpoint)."""
    with temporary_folder("attunet_jax_dry_run_") as folder:
        config = row.config.copy_and_resolve_references()
        config.train.steps = TRIED_STEPS
        config.train.log_every_steps = 1
        config.train.evaluate_every_steps = TRIED_STEPS
        trial = replace(row, config=config, folder=folder / "trial")
        print(f"{row.name}: {TRIED_STEPS} steps in {trial.folder}", flush=True)
        run_program(started_here(trial.train_command(launcher)))
        step_s = measured_step_s(trial.folder)
        size = bytes_of_step(trial.folder, TRIED_STEPS)
    assert step_s is not None, "a training without a logged step"
    return Measured(step_s, Path(f"{TRIED_STEPS} steps now")), size
