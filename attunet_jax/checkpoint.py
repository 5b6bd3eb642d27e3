"""Saves and restores a run's checkpoints with Orbax.

`workdir/checkpoints/<step>/{state,position,run,metrics}`: the training state, the
position in the data, the resolved config with what else describes the run, and the
validation Dice. Where the run's folder stands for one in a bucket, they are written and
read there. A step is written whole or not at all: a kill during a save leaves the
step before it. A state with a number that is not finite is never written.
"""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from attunet_jax.errors import BadData, Interrupted, one_line
from attunet_jax.storage.run_folder import CHECKPOINTS, place

BEST_METRIC = "dice"
# A metric beside it, 1 where the Dice is that of crops centred on organs. Without it,
# it is that of the middles of the scans, and no score to compare others with.
CENTRED_ON_ORGANS = "centred_on_organs"
# What TensorStore says in a long text of its own.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EIO,
)


class NotFinite(BadData):
    """A state holds numbers that are not finite, and is not saved."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending saves."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_latest: int,
        keep_best: int,
        keep_steps: Sequence[int] = (),
        clean_up: bool,
    ) -> None:
        self._directory = directory
        self._failed = False
        # Not best_fn with max_to_keep: that pair deletes the newest step when its
        # metric is worst, and a resumed run would lose work.
        policy = preserve.AnyPreservationPolicy(
            [
                preserve.LatestN(n=keep_latest),
                preserve.CustomSteps(tuple(keep_steps)),
                preserve.BestN(
                    n=keep_best,
                    get_metric_fn=_rank,
                    reverse=False,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_rank,
            best_mode="max",
            cleanup_tmp_directories=clean_up,
        )
        try:
            self._manager = ocp.CheckpointManager(
                epath.Path(place(directory.absolute())),
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
            return  # nothing to wait for; Orbax would raise the same error again
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

    def place(self, step: int) -> Path:
        """The folder of a step."""
        return self._directory / str(step)

    def best(self) -> int | None:
        """The step with the highest validation Dice, if any was saved with one."""
        scored = [
            (_rank(metrics), step)
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
        """Saves in the background; an existing step is left as it is.

        Raises `NotFinite`, in all processes, where the state of any of them holds a
        number that is not finite; then nothing is saved.
        """
        if step in self._manager.all_steps():
            return
        if not _true_on_all(is_finite(state)):
            raise NotFinite(
                f"{self._directory}: step {step} is not saved: "
                f"{_first_not_finite(state)} is not finite"
            )
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
        """Waits until everything is on disk. Raises `BadData` if that fails."""
        with self._writing():
            self._manager.wait_until_finished()

    def check(self) -> None:
        """Raises `BadData` if a save in the background has failed so far."""
        with self._writing():
            self._manager.check_for_errors()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns the many exceptions of Orbax and TensorStore into one `BadData`."""
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise  # of the state itself or of another process, not of the disk
        except Exception as error:
            self._failed = True
            self._list_again()
            raise BadData(
                f"{self._directory}: a checkpoint could not be written "
                f"({_cause(error)}); those before it are whole: make room there and "
                "the same command continues from the last"
            ) from error

    def _list_again(self) -> None:
        """Lists what is on disk.

        Orbax 0.12.8 takes the steps that a new one replaces off its list when the save
        begins, and removes them when it is whole: after a save that failed they are
        there, and not listed. Not with several processes: listing is a collective, the
        error may be one process's alone, and it ends them all.
        """
        if jax.process_count() > 1:
            return
        try:
            self._manager.reload()
        except Exception as error:  # noqa: BLE001 - the save's own error is raised
            logging.warning("%s: not listed again: %s", self._directory, error)

    def reached_preemption(self, step: int) -> bool:
        """Whether the platform asked all processes to stop at this step."""
        return self._manager.reached_preemption(step)

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Returns (state, position) of a step, with the given shapes and shardings.

        Raises `BadData` naming the folder if it is damaged or of another network.
        """
        found = self._restore(
            step,
            state=ocp.args.StandardRestore(abstract_state),
            position=ocp.args.JsonRestore(),
        )
        return found["state"], found["position"]

    def restore_variables(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Restores some items of a step's state, such as its "params".

        `abstract` has the shapes and shardings of these items; the optimizer's arrays
        and whatever else it does not name are not read. Only for checkpoints opened to
        be read: Orbax does not save and restore in part with one manager. Raises
        `BadData` as `restore`.
        """
        self._check_shapes(step, abstract)
        arguments = ocp.args.PyTreeRestore(
            abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=True,
        )
        return self._restore(step, state=arguments)["state"]

    def _check_shapes(self, step: int, abstract: dict[str, Any]) -> None:
        """Raises `BadData` unless the stored items have exactly these arrays.

        Orbax would skip an array that is not there, and after an error leave the reads
        of the other arrays to fail later.
        """
        folder = self._directory / str(step)
        try:
            with closing(ocp.PyTreeCheckpointHandler()) as handler:
                place_of_state = epath.Path(place(folder.absolute())) / "state"
                tree = handler.metadata(place_of_state).tree
            stored = _shapes({name: tree[name] for name in abstract})
        except Exception as error:
            raise BadData(
                f"{folder}: cannot be restored ({one_line(error)[:200]}); use another "
                "checkpoint"
            ) from error
        requested = _shapes(abstract)
        for name in sorted(stored.keys() | requested.keys()):
            if stored.get(name) != requested.get(name):
                raise BadData(
                    f"{folder}: cannot be restored ({name} has shape "
                    f"{stored.get(name)} there, {requested.get(name)} here); use "
                    "another checkpoint"
                )

    def _restore(self, step: int, **arguments: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise BadData(
                f"{self._directory / str(step)}: cannot be restored "
                f"({one_line(error)[:200]}); use another checkpoint"
            ) from error

    def restore_newest(self, abstract_state: Any) -> tuple[Any, dict] | None:
        """Restores the newest step that is whole, and logs each damaged one.

        Damaged steps are removed: with one of them as the newest step, no earlier step
        that the run saves would be kept. With several processes all restore the same
        step, the newest that each of them can read.
        """
        damaged: dict[int, BadData] = {}
        for step in reversed(_steps_of_process_0(self.steps())):
            found, error = None, None
            try:
                found = self.restore(step, abstract_state)
                if not is_finite(found[0]):
                    raise BadData(
                        f"{self._directory / str(step)}: {_first_not_finite(found[0])} "
                        "is not finite"
                    )
            except BadData as raised:
                error = raised
            if not _true_on_all(error is None):
                damaged[step] = error or BadData(
                    f"{self._directory / str(step)}: cannot be restored by another "
                    "process"
                )
                if jax.process_index() == 0:
                    logging.warning("%s; trying the one before", damaged[step])
                continue
            for newer in damaged:
                self._manager.delete(newer)
            return found
        if damaged:
            raise next(iter(damaged.values()))
        return None

    def run(self, step: int) -> dict:
        """Reads what was saved as `run` with a step: resolved config, outputs, ..."""
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(run=ocp.args.JsonRestore())
            )
        except Exception as error:
            raise BadData(
                f"{self._directory / str(step)}: its description cannot be read "
                f"({one_line(error)[:200]})"
            ) from error
        return found["run"]


def open_existing(workdir: Path) -> Checkpoints:
    """Opens the checkpoints of a finished or interrupted run for reading.

    Raises `BadData` if there are none.
    """
    directory = workdir / CHECKPOINTS
    if not place(directory.absolute()).is_dir():
        raise BadData(f"{workdir}: no checkpoints here; train with --workdir={workdir}")
    # Not clean_up: another program may be training here and writing a checkpoint.
    checkpoints = Checkpoints(
        directory, keep_latest=10**6, keep_best=10**6, clean_up=False
    )
    if not checkpoints.steps():
        checkpoints.close()
        raise BadData(f"{directory}: no complete checkpoint; train a little longer")
    return checkpoints


def is_finite(tree: Any) -> bool:
    """Whether every number of the arrays and its square is finite, so below 1.8e19.

    A network with larger ones is lost too: the variances in BatchNorm overflow. It is
    computed where the arrays are.
    """
    return bool(_is_finite(tree))


@jax.jit
def _is_finite(tree: Any) -> jax.Array:
    found = [jnp.isfinite(jnp.square(x)).all() for x in jax.tree.leaves(tree)]
    return jnp.stack(found).all()


def _first_not_finite(tree: Any) -> str:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_finite(leaf):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return "that of another process"


def _rank(metrics: dict[str, float]) -> float:
    """What the best checkpoint has most of: a Dice on organs goes before any other."""
    return metrics[BEST_METRIC] + metrics.get(CENTRED_ON_ORGANS, 0)


def with_sharding(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns the same shapes and types, each with `sharding`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _steps_of_process_0(steps: list[int]) -> list[int]:
    """Process 0's list: a shared folder may show each process another for a while."""
    if jax.process_count() == 1:
        return steps
    count = multihost_utils.broadcast_one_to_all(np.int32(len(steps)))
    row = np.zeros(int(count), np.int32)
    mine = np.array(steps[: row.size], np.int32)
    row[: mine.size] = mine
    return [int(step) for step in multihost_utils.broadcast_one_to_all(row)]


def _true_on_all(mine: bool) -> bool:
    """Whether `mine` is true in every process; a collective."""
    if jax.process_count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.bool_(mine))))


def _cause(error: BaseException) -> str:
    """The system's own message if there is one, such as "No space left on device"."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    text = one_line(error)
    of_disks = map(os.strerror, DISK_ERRORS)
    return next((words for words in of_disks if words in text), text[:200])
