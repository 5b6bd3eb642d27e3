"""Orbax checkpoints of a run: state, data position, what the run is, by policy.

`workdir/checkpoints/<step>/{state,position,run,metrics}`. A step is there whole
or not at all: a kill during a save leaves the one before.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from attunet_jax.errors import BadData, Interrupted, one_line

BEST_METRIC = "dice"


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending saves."""

    def __init__(
        self, directory: Path, *, keep_latest: int, keep_best: int, clean_up: bool
    ) -> None:
        self._directory = directory
        self._failed = False
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._failed:
            return  # nothing to wait for; Orbax would raise the same once more
        if kind is not None and jax.process_count() > 1 and kind is not Interrupted:
            return  # closing waits for the other processes, and they may be elsewhere
        self.close()

    def close(self) -> None:
        """Waits for pending saves and ends Orbax's threads."""
        with self._writing():
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
        with self._writing():
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
        """Returns when everything is on disk. Raises `BadData` where it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()

    def check(self) -> None:
        """Raises `BadData` where a save in the background has failed by now."""
        with self._writing():
            self._manager.check_for_errors()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What cannot be written is one line; the checkpoints before are as they were.

        Orbax and TensorStore raise many kinds, some with the system's words only.
        """
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise  # of the state itself or of another process, not of the disk
        except Exception as error:
            self._failed = True
            raise BadData(
                f"{self._directory}: a checkpoint could not be written "
                f"({_cause(error)}); those before it are whole: make room there and "
                "the same command goes on from the last"
            ) from error

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
        saves on its way there would be kept. With several processes all take the same
        step, the newest that every one of them can read.
        """
        leader = jax.process_index() == 0
        damaged: dict[int, BadData] = {}
        for step in reversed(_as_process_0(self.steps())):
            found, error = None, None
            try:
                found = self.restore(step, abstract_state)
            except BadData as raised:
                error = raised
            if not _by_all(error is None):
                damaged[step] = error or BadData(
                    f"{self._directory / str(step)}: cannot be restored by another "
                    "process"
                )
                if leader:
                    logging.warning("%s; trying the one before", damaged[step])
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


def _as_process_0(steps: list[int]) -> list[int]:
    """Its steps: a shared folder may show each process something else for a while."""
    if jax.process_count() == 1:
        return steps
    count = multihost_utils.broadcast_one_to_all(np.int32(len(steps)))
    row = np.zeros(int(count), np.int32)
    mine = np.array(steps[: row.size], np.int32)
    row[: mine.size] = mine
    return [int(step) for step in multihost_utils.broadcast_one_to_all(row)]


def _by_all(mine: bool) -> bool:
    """Whether all processes say so; a collective."""
    if jax.process_count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.bool_(mine))))


def _cause(error: BaseException) -> str:
    """The system's own words where there are some: "No space left on device"."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    text = one_line(error)
    words = os.strerror(errno.ENOSPC)
    return words if words in text else text[:200]
