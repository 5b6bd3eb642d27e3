"""Orbax checkpoints of a run: state, data position, what the run is, by policy.

`workdir/checkpoints/<step>/{state,position,run,metrics}`. A step is there whole
or not at all: a kill during a save leaves the one before.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from attunet_jax.errors import BadData, one_line

BEST_METRIC = "dice"


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending saves."""

    def __init__(
        self, directory: Path, *, keep_latest: int, keep_best: int, clean_up: bool
    ) -> None:
        self._directory = directory
        # Not best_fn with max_to_keep: that pair deletes the newest step when its
        # metric is worst, and a resumed run would lose work.
        policy = preserve.AnyPreservationPolicy(
            [
                preserve.LatestN(n=keep_latest),
                preserve.BestN(
                    n=keep_best,
                    get_metric_fn=lambda m: m[BEST_METRIC],
                    reverse=False,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda m: m[BEST_METRIC],
            best_mode="max",
            cleanup_tmp_directories=clean_up,
        )
        try:
            self._manager = ocp.CheckpointManager(
                epath.Path(directory.absolute()),
                item_names=("state", "position", "run"),
                options=options,
            )
        except ValueError as error:  # of the metrics' JSON
            raise BadData(
                f"{directory}: the metrics of a checkpoint are damaged "
                f"({one_line(error)[:100]}); remove that step's folder"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for pending saves and ends Orbax's threads."""
        self._manager.close()

    def steps(self) -> list[int]:
        """Complete steps, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step with the highest held-out Dice, if any was saved with one."""
        scored = [
            (metrics[BEST_METRIC], step)
            for step in self.steps()
            if (metrics := self._manager.metrics(step))
        ]
        return max(scored)[1] if scored else None

    def save(
        self,
        step: int,
        state: Any,
        *,
        position: dict,
        run: dict,
        metrics: dict[str, float] | None,
    ) -> None:
        """Saves in the background; a step that is already there stays as it is."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                position=ocp.args.JsonSave(position),
                run=ocp.args.JsonSave(run),
            ),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def reached_preemption(self, step: int) -> bool:
        """Whether the platform asked all processes to stop at this step."""
        return self._manager.reached_preemption(step)

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """(state, position) of a step, in the shapes and shardings asked for.

        Raises `BadData` naming the folder if it is damaged or of another network.
        """
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract_state),
                    position=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise BadData(
                f"{self._directory / str(step)}: cannot be restored "
                f"({one_line(error)[:200]}); use another checkpoint"
            ) from error
        return found["state"], found["position"]

    def restore_newest(self, abstract_state: Any) -> tuple[Any, dict] | None:
        """The newest step that is whole; names each damaged one it passes over.

        Those are removed: with one of them as the newest step, nothing that the run
        saves on its way there would be kept.
        """
        damaged: dict[int, BadData] = {}
        for step in reversed(self.steps()):
            try:
                found = self.restore(step, abstract_state)
            except BadData as error:
                logging.warning("%s; trying the one before", error)
                damaged[step] = error
                continue
            for newer in damaged:
                self._manager.delete(newer)
            return found
        if damaged:
            raise next(iter(damaged.values()))
        return None

    def run(self, step: int) -> dict:
        """What was saved as `run` with a step: resolved config, classes, spacing."""
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(run=ocp.args.JsonRestore())
            )
        except Exception as error:
            raise BadData(
                f"{self._directory / str(step)}: what it is cannot be read "
                f"({one_line(error)[:200]})"
            ) from error
        return found["run"]


def open_existing(workdir: Path) -> Checkpoints:
    """The checkpoints of a finished or interrupted run, for reading.

    Raises `BadData` when there are none.
    """
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise BadData(f"{workdir}: no checkpoints here; train with --workdir={workdir}")
    # Not clean_up: another program may be training here and writing a checkpoint.
    checkpoints = Checkpoints(
        directory, keep_latest=10**6, keep_best=10**6, clean_up=False
    )
    if not checkpoints.steps():
        checkpoints.close()
        raise BadData(f"{directory}: no complete checkpoint; train a little longer")
    return checkpoints


def with_sharding(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and types of a state, to be restored onto `sharding`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )
