"""Sets up a run from its config, with checks whose errors all processes raise."""

import copy
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from attunet_jax.checkpoint import Checkpoints, with_sharding
from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.data.pipeline import HostBatch, training_batches
from attunet_jax.distributed.consensus import (
    assert_equal_across_processes,
    gather_host_names,
    raise_on_all,
)
from attunet_jax.distributed.mesh import data_shard, make_mesh, replicated
from attunet_jax.distributed.processes import print_on_main
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.intensity import CtNormalisation
from attunet_jax.storage import run_folder
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown
from attunet_jax.storage.urls import is_url
from attunet_jax.train.config_checks import (
    Config,
    check_fits_mesh,
    differing_fields,
    meant_before,
)
from attunet_jax.train.experiment import (
    Experiment,
    make_experiment,
    with_classes,
)
from attunet_jax.train.state import TrainState, init_state
from attunet_jax.train.trained import (
    TrainedModel,
    init_from,
    load_trained,
    newest_stored_run,
    stored_run,
)

# Fields that may differ between hosts: where and how each of them reads.
FREE_ON_A_HOST = {"data.directory", "data.threads", "data.prefetch_batches"}


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    config: Config
    dataset: Dataset
    mesh: Mesh
    experiment: Experiment
    source: TrainedModel | None
    hosts: list[str]  # host name of each process
    init_key: jax.Array
    step_key: jax.Array

    @property
    def abstract_state(self) -> TrainState:
        """Shapes of the state, replicated on every device."""
        shapes = jax.eval_shape(self.experiment.create_state, self.init_key)
        return with_sharding(shapes, replicated(self.mesh))


def setup(
    config: Config, workdir: Path | None = None, cache_dir: Path | None = None
) -> Run:
    """Sets up a run, or its continuation where `workdir` holds a checkpoint.

    Data in a bucket is first copied into `cache_dir`, by each host for itself.
    A continuation needs nothing of the run that `config.init_from` names: it may be
    gone. Raises `BadArguments` or `BadData`, the same in all processes.
    """

    here = raise_on_all(
        lambda: mirrored(config.data.directory, cache_dir),
        may_be_long=is_url(config.data.directory),
    )

    def open_data() -> tuple[Dataset, Mesh]:
        return open_dataset(here), make_mesh(
            config.mesh.data,
            config.mesh.spatial,
            spatial_across_slices=config.mesh.spatial_across_slices,
        )

    dataset, mesh = raise_on_all(open_data)
    assert_equal_across_processes(
        {
            f"--config.{name}": x
            for name, x in _shared_fields(json.loads(config.to_json()))
        }
        | {
            "manifest.json of the data": dataset.manifest_sha256,
            "splits.json of the data": dataset.splits.get(config.data.split),
        }
    )
    config = with_classes(config, dataset.labels)
    # Not within raise_on_all: reading a checkpoint is itself a collective.
    before = newest_stored_run(workdir) if workdir else None
    source = None
    if before is None and config.init_from:
        with run_folder.read(config.init_from) as folder:
            source = load_trained(folder, {})

    def make() -> Experiment:
        if before is not None:
            _check_same_run(before["config"], json.loads(config.to_json()), workdir)
        experiment = make_experiment(config, dataset, mesh, source, before)
        if before is not None:
            _check_same_split(before, dataset, workdir)
            _check_same_numbers(before, experiment.run, workdir)
        check_fits_mesh(config, mesh)
        return experiment

    experiment = raise_on_all(make)
    if config.data.foreground_fraction:
        raise_on_all(lambda: _note_on_index(dataset, experiment.train_ids[0]))
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return Run(
        config=config,
        dataset=dataset,
        mesh=mesh,
        experiment=experiment,
        source=source,
        hosts=gather_host_names(),
        init_key=init_key,
        step_key=step_key,
    )


def as_begun(config: Config, workdir: Path) -> tuple[Config, list[str]]:
    """Returns the config to go on with in `workdir`, and a line for each change.

    Where the run there was begun before a field existed, the field keeps what it meant
    then: the command of that time goes on. Where `config` names no classes, they are
    those of the run there.
    """
    try:
        if not any(run_folder.place(workdir / run_folder.CHECKPOINTS).iterdir()):
            return config, []
        text = (workdir / "config.json").read_text(encoding="utf-8")
        stored = json.loads(text)["config"]
        changes = meant_before(stored, json.loads(config.to_json()))
        classes = tuple(map(str, stored.get("classes", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return config, []  # a new run, or what restoring will name
    lines = []
    if changes or not config.classes:
        copied: Any = copy.deepcopy(config)
        copied.classes = tuple(config.classes) or classes
        config = copied
    for name, value in changes.items():
        group, field = name.split(".")
        config[group][field] = value
        lines.append(
            f"{shown(workdir)} was begun before config.{name}: goes on with {value}"
        )
    return config, lines


def _note_on_index(dataset: Dataset, case_id: str) -> None:
    """Says so where crops centred on organs need whole label maps."""
    if dataset.open(case_id).stored_organ_voxels is None:
        print_on_main(
            f"note: {dataset.place} was prepared without an index of organ voxels, "
            "so config.data.foreground_fraction reads whole label maps: slower, with "
            "the same crops; data that is prepared today has the index"
        )


def init_or_restore(
    run: Run, checkpoints: Checkpoints, workdir: Path
) -> tuple[TrainState, int, str | None]:
    """Returns (state, its step, what the user should know about it).

    The state is that of the newest whole checkpoint in `workdir`, or without one that
    of random parameters, replaced by those of `config.init_from` if given.
    """
    experiment = run.experiment
    restored = checkpoints.restore_newest(run.abstract_state)
    if restored is not None:
        state, position = restored
        _check_same_data(position, run.dataset, workdir)
        step = position["step"]
        return state, step, _other_convolution(checkpoints, step, experiment.run)
    state = init_state(experiment.create_state, run.init_key, replicated(run.mesh))
    if run.source is None:
        return state, 0, None
    state, new = init_from(run.source, state, tuple(experiment.run["outputs"]))
    count = len(jax.tree.leaves(state.variables))
    return (
        state,
        0,
        f"begins from {shown(run.source.workdir)}, step {run.source.step}: took "
        f"{count - len(new)} of {count} arrays"
        + (f"; new: {', '.join(new)}" if new else ""),
    )


def describe_finished(run: Run, checkpoints: Checkpoints, step: int) -> str:
    """Says that nothing is left to train, and what of the config is not stored."""
    text = (
        f"this run is finished: at step {step}, and config.train asks for "
        f"{run.experiment.steps}; to train more: --config.train.steps={2 * step}"
    )
    stored = stored_run(checkpoints, step)["config"]["predict"]
    fields = run.experiment.run["config"]["predict"]
    changed = [name for name, x in fields.items() if stored.get(name) != x]
    if changed:
        text += "\nnot stored, give them to launch.evaluate or launch.predict: "
        text += " ".join(f"--config.predict.{name}" for name in changed)
    return text


def batches_from(run: Run, step: int) -> Generator[HostBatch, None, None]:
    """This process's rows of the batches of step `step + 1` and later."""
    experiment = run.experiment
    return stream(
        run.config,
        run.dataset,
        experiment.train_ids,
        run.mesh,
        step,
        experiment.normalisation,
    )


def stream(
    config: Config,
    dataset: Dataset,
    case_ids: Sequence[str],
    mesh: Mesh,
    position: int,
    normalisation: CtNormalisation | None,
) -> Generator[HostBatch, None, None]:
    """Training's host batches of a config, for this process's part of the mesh."""
    data = config.data
    return training_batches(
        dataset,
        case_ids,
        CropSpec(
            window_shape=tuple(data.read_shape),
            min_shape=tuple(data.crop_shape),
            padding=data.padding,
            foreground_fraction=data.foreground_fraction,
            normalisation=normalisation,
            organs=dataset.labels.stored(with_classes(config, dataset.labels).classes),
        ),
        batch_size=data.batch_size,
        seed=config.seed,
        shard=data_shard(mesh),
        start_step=position,
        threads=data.threads,
        prefetch=data.prefetch_batches,
    )


def _check_same_run(
    stored: dict[str, Any], config: dict[str, Any], workdir: Path | None
) -> None:
    differing = differing_fields(stored, config)
    if differing:
        raise BadArguments(
            f"{workdir} holds a run with another {'; '.join(differing)}: "
            "use another --workdir"
        )


def _check_same_split(
    stored: dict[str, Any], dataset: Dataset, workdir: Path | None
) -> None:
    if redrawn := dataset.redrawn_since(stored):
        raise BadArguments(f"{redrawn}, or use another --workdir than {workdir}")


def _check_same_numbers(
    stored: dict[str, Any], run: dict[str, Any], workdir: Path | None
) -> None:
    if stored.get("normalisation") != run["normalisation"]:
        raise BadArguments(
            f"{workdir} holds a run whose scans are normalised by other numbers: its "
            "training cases, or the run it began from, are others now: use another "
            "--workdir"
        )


def _check_same_data(position: dict[str, Any], dataset: Dataset, workdir: Path) -> None:
    if position["manifest_sha256"] != dataset.manifest_sha256:
        raise BadArguments(
            f"{workdir} was trained on other data than {dataset.place} (its "
            "manifest differs): use another --workdir"
        )


def _other_convolution(
    checkpoints: Checkpoints, step: int, run: dict[str, Any]
) -> str | None:
    """A line for a run that continues with another form than its checkpoint's."""
    try:
        stored = checkpoints.run(step).get("convolution")
    except BadData:
        return None
    if stored in (None, run["convolution"]):
        return None
    return (
        f"convolution: step {step} was trained with {stored!r}, this run continues "
        f"with {run['convolution']!r}; the results differ in rounding"
    )


def _shared_fields(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of all fields that must be the same in all processes."""
    fields = []
    for name, value in config.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            fields += _shared_fields(value, f"{dotted}.")
        elif dotted not in FREE_ON_A_HOST:
            fields.append((dotted, value))
    return fields
