"""Trained models: loaded from a run's folder, and as the beginning of another run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from attunet_jax.checkpoint import Checkpoints, is_finite, open_existing, with_sharding
from attunet_jax.config_fields import check_stored
from attunet_jax.distributed.consensus import gather_texts
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import local_path
from attunet_jax.model import AttentionUNet3D, build_network
from attunet_jax.ops import dispatch
from attunet_jax.storage.run_folder import whole_steps
from attunet_jax.train.config_checks import check_windows
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, state_of
from attunet_jax.train.stored_run import with_todays_fields


@dataclass(frozen=True)
class TrainedModel:
    """What prediction and fine-tuning need to know of a run."""

    network: AttentionUNet3D
    variables: dict[str, Any]  # params and batch_stats, on one local device
    step: int
    run: dict[str, Any]  # see `Experiment.run`
    workdir: Path

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of each output node; the position is the value in a label map."""
        return tuple(self.run["outputs"])


def load_trained(workdir: Path, overrides: Mapping[str, Any]) -> TrainedModel:
    """Loads the checkpoint that the run's `config.predict.checkpoint` names.

    Reads parameters and BatchNorm statistics only. `overrides` replaces fields of the
    run's `config.predict`. Without validation cases "best" is the latest. Raises
    `BadData` or `BadArguments` naming what does not fit.
    """
    with open_existing(local_path(workdir)) as checkpoints:
        newest = stored_run(checkpoints, checkpoints.steps()[-1])
        requested = (newest["config"]["predict"] | dict(overrides))["checkpoint"]
        step = _step(checkpoints, requested, workdir)
        run = stored_run(checkpoints, step)
        run["config"]["predict"].update(overrides)
        check_stored(run["config"])
        if {"window_shape", "spatial"} & overrides.keys():
            # Before the first scan, not at the first large one.
            check_windows(run["config"]["predict"], run["config"]["model"]["widths"])
        network = build_network(
            _buildable_here(run["config"]["model"]),
            num_classes=len(run["outputs"]),
            backend=jax.default_backend(),
            device_count=run["config"]["predict"]["spatial"],
        )
        size = 2 ** (len(network.widths) - 1)
        image = jax.ShapeDtypeStruct((1, size, size, size, 1), jnp.float32)
        shapes = jax.eval_shape(
            lambda key, image: network.init(key, image, train=True),
            jax.random.key(0),
            image,
        )
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        variables = checkpoints.restore_variables(
            step,
            with_sharding({k: shapes[k] for k in ("params", "batch_stats")}, here),
        )
        if not is_finite(variables):  # saved before that was refused
            steps = ", ".join(map(str, checkpoints.steps()))
            raise BadData(
                f"{workdir}: the parameters of step {step} are not finite, it would "
                "find nothing: choose another --config.predict.checkpoint of its "
                f"steps {steps}, or train again"
            )
    return TrainedModel(network, variables, step, run, workdir)


def _buildable_here(model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a network whose machine may have had another convolution."""
    if model["convolution"] == dispatch.ONEDNN:
        return {**model, "convolution": dispatch.AUTO}  # itself where it is there
    return dict(model)


def newest_stored_run(workdir: Path) -> dict[str, Any] | None:
    """What the newest checkpoint in `workdir` stores of its run; None without one.

    Damaged ones are passed over. A collective: all processes take what process 0 finds.
    """
    here = bool(whole_steps(workdir))
    if not json.loads(gather_texts(json.dumps(here))[0]):
        return None
    found = None
    with Checkpoints(
        workdir / "checkpoints", keep_latest=10**6, keep_best=10**6, clean_up=False
    ) as checkpoints:
        for step in reversed(checkpoints.steps()):
            try:
                found = checkpoints.run(step), str(checkpoints.place(step))
                break
            except BadData:
                continue  # restoring names it
    found = json.loads(gather_texts(json.dumps(found))[0])
    return with_todays_fields(*found) if found else None


def stored_run(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """Reads a checkpoint's `run`, its config with today's fields.

    Raises `BadData` where it is damaged or of a version that this one cannot read.
    """
    return with_todays_fields(checkpoints.run(step), checkpoints.place(step))


def state_of_weights(
    variables: Mapping[str, Any], run: Mapping[str, Any]
) -> TrainState:
    """The state to save for weights `{params, batch_stats}` from elsewhere."""
    fields = dict(run["config"]["optimizer"])
    fields.pop("decay_every_epochs")
    # Its schedule is not stored: only the shapes of its state are.
    optimizer = make_optimizer(decay_every_steps=1, **fields)
    return state_of(jax.tree.map(jnp.asarray, dict(variables)), optimizer)


def _step(checkpoints: Checkpoints, requested: str, workdir: Path) -> int:
    steps = checkpoints.steps()
    if requested == "latest":
        return steps[-1]
    if requested == "best":
        best = checkpoints.best()
        return steps[-1] if best is None else best
    if requested.isdecimal() and int(requested) in steps:
        return int(requested)
    raise BadArguments(
        f"--config.predict.checkpoint={requested}: is neither best, latest nor a step "
        f"of {workdir}, which has: {', '.join(map(str, steps))}"
    )


# Layers whose size is the number of outputs: only these may be new in a fine-tuning.
HEAD = ("supervision_", "fusion")


def init_from(
    source: TrainedModel, state: TrainState, outputs: tuple[str, ...]
) -> tuple[TrainState, list[str]]:
    """Replaces parameters and statistics of `state` by the source's.

    Returns the state and the names of the arrays that keep their random values: where
    `outputs` are not the source's, those of the head, since outputs of another meaning
    are no beginning. The optimizer's state stays as it is.
    """
    stored, initial = _flat(source.variables), _flat(state.variables)
    taken, new = {}, []
    for path, random in initial.items():
        old = stored.get(path)
        if outputs != source.outputs and path.split("/")[1].startswith(HEAD):
            taken[path] = random
            new.append(path)
        elif old is not None and old.shape == random.shape:
            # By way of the host: with several processes each has its own copy.
            taken[path] = jax.device_put(np.asarray(old), random.sharding)
        else:
            raise BadArguments(f"--config.init_from={source.workdir}: no {path} there")
    variables = unflatten_dict(taken, sep="/")
    return state.replace(**variables), new  # pyright: ignore[reportAttributeAccessIssue]


def _flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    return flatten_dict(variables, sep="/")
