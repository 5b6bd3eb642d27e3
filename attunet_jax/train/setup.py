"""A config in; what a run is made of, checked by all processes before any step, out."""

import json
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from attunet_jax.checkpoint import Checkpoints, with_sharding
from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.data.pipeline import training_batches
from attunet_jax.distributed.consensus import checked_by_all, hosts_of_all, same_for_all
from attunet_jax.distributed.mesh import data_shard, make_mesh, replicated
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.train.experiment import Plan, differing_fields, make_plan
from attunet_jax.train.state import TrainState, draw_state, initial_state
from attunet_jax.train.trained import FinishedRun, begin_from, load_finished

# Fields that hosts may have different: where and how each of them reads.
FREE_ON_A_HOST = {"data.directory", "data.threads", "data.prefetch_batches"}


@dataclass(frozen=True)
class Run:
    """What does not change from the first step to the last."""

    config: Any
    dataset: Dataset
    mesh: Any
    plan: Plan
    source: FinishedRun | None
    hosts: list[str]  # name of each process's host
    init_key: jax.Array
    step_key: jax.Array

    def begin(self, key: jax.Array) -> TrainState:
        """Random parameters; pure."""
        return initial_state(key, self.plan.network, self.plan.optimizer)

    @property
    def abstract_state(self) -> Any:
        """Shapes of the state, on every device whole."""
        shapes = jax.eval_shape(self.begin, self.init_key)
        return with_sharding(shapes, replicated(self.mesh))


def prepare(config: Any) -> Run:
    """Raises `BadArguments` or `BadData`, in all processes the same."""

    def find() -> tuple[Dataset, Any]:
        dataset = open_dataset(Path(config.data.directory))
        mesh = make_mesh(config.mesh.data, config.mesh.spatial)
        return dataset, mesh

    dataset, mesh = checked_by_all(find)
    resolved = json.loads(config.to_json())
    same_for_all(
        {f"config.{name}": value for name, value in _fields(resolved)}
        | {"manifest.json of the data": dataset.manifest_sha256}
    )
    # Not within checked_by_all: reading checkpoints is itself done in step.
    source = load_finished(Path(config.init_from), {}) if config.init_from else None

    def plan_it() -> Plan:
        plan = make_plan(config, dataset, mesh.size, source)
        check_fits_mesh(config, mesh)
        return plan

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return Run(
        config=config,
        dataset=dataset,
        mesh=mesh,
        plan=checked_by_all(plan_it),
        source=source,
        hosts=hosts_of_all(),
        init_key=init_key,
        step_key=step_key,
    )


def first_state(
    run: Run, checkpoints: Checkpoints, workdir: Path
) -> tuple[TrainState, int, list[str] | None]:
    """(state, step it stands at, names of arrays that are new in a fine-tuning).

    A run begins in one of three ways: 1. it goes on from its newest whole checkpoint;
    2. from random parameters; 3. from those of a finished run. No device ever holds
    more than its share, not even at the start.
    """
    checked_by_all(
        lambda: _refuse_other_run(checkpoints, run.plan.run["config"], workdir)
    )
    restored = checkpoints.restore_newest(run.abstract_state)
    if restored is not None:
        state, position = restored
        _refuse_other_data(position, run.dataset, workdir)
        return state, position["step"], None
    state = draw_state(run.begin, run.init_key, replicated(run.mesh))
    if run.source is None:
        return state, 0, None
    state, new = begin_from(run.source, state, tuple(run.plan.run["outputs"]))
    return state, 0, new


def batches_from(run: Run, position: int) -> Generator[dict, None, None]:
    """This process's rows of step `position + 1` on: the position is the step."""
    return stream(run.config, run.dataset, run.plan.train_ids, run.mesh, position)


def stream(
    config: Any, dataset: Dataset, case_ids: Sequence[str], mesh: Any, position: int
) -> Generator[dict, None, None]:
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
        ),
        batch_size=data.batch_size,
        seed=config.seed,
        shard=data_shard(mesh),
        start_step=position,
        threads=data.threads,
        prefetch=data.prefetch_batches,
    )


def check_fits_mesh(config: Any, mesh: Any) -> None:
    """Raises `BadArguments` where the mesh does not divide the batch or the depth."""
    data, spatial = mesh.devices.shape
    if config.data.batch_size % data:
        raise BadArguments(
            f"config.data.batch_size={config.data.batch_size} cannot be split over "
            f"{data} devices: use a multiple, or config.mesh.data="
            f"{math.gcd(data, config.data.batch_size)}"
        )
    depth, read_depth = config.data.crop_shape[0], config.data.read_shape[0]
    slices = spatial * 2 ** (len(config.model.widths) - 1)
    if spatial > 1 and (depth % slices or depth != read_depth):
        raise BadArguments(
            f"with config.mesh.spatial={spatial} the depth of config.data.crop_shape "
            f"({depth}) must be divisible by {slices} and equal that of "
            f"config.data.read_shape ({read_depth})"
        )


def _refuse_other_run(checkpoints: Checkpoints, config: dict, workdir: Path) -> None:
    steps = checkpoints.steps()
    if not steps:
        return
    try:
        there = checkpoints.run(steps[-1])["config"]
    except BadData:
        return  # damaged: restoring names it and goes on with the one before
    differing = differing_fields(there, config)
    if differing:
        raise BadArguments(
            f"{workdir} holds a run with another {'; '.join(differing)}: "
            "use another --workdir"
        )


def _refuse_other_data(position: dict, dataset: Dataset, workdir: Path) -> None:
    if position["manifest_sha256"] != dataset.manifest_sha256:
        raise BadArguments(
            f"{workdir} was trained on other data than {dataset.directory} (its "
            "manifest differs): use another --workdir"
        )


def _fields(config: dict, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of all fields that must be the same in all processes."""
    fields = []
    for name, value in config.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            fields += _fields(value, f"{dotted}.")
        elif dotted not in FREE_ON_A_HOST:
            fields.append((dotted, value))
    return fields
