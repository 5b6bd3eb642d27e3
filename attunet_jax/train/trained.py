"""A run's folder in, its network and the parameters of one of its checkpoints out.

A finished run and an untrained state in, a state that begins where it ended out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from attunet_jax.checkpoint import Checkpoints, open_existing, with_sharding
from attunet_jax.errors import BadArguments
from attunet_jax.model import AttentionUNet3D, build_network
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, initial_state


@dataclass(frozen=True)
class FinishedRun:
    """What prediction and fine-tuning need to know of a run."""

    network: AttentionUNet3D
    state: TrainState  # on one local device
    run: dict  # see `Plan.run`
    workdir: Path

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of each output node; the position is the value in a label map."""
        return tuple(self.run["outputs"])


def load_finished(workdir: Path, overrides: Mapping[str, Any]) -> FinishedRun:
    """The checkpoint that the run's `config.predict.checkpoint` names.

    `overrides` replaces fields of the run's `config.predict`. Without held-out cases
    "best" is the latest. Raises `BadData` or `BadArguments` naming what does not fit.
    """
    with open_existing(workdir) as checkpoints:
        newest = checkpoints.run(checkpoints.steps()[-1])
        wanted = (newest["config"]["predict"] | dict(overrides))["checkpoint"]
        step = _step(checkpoints, wanted, workdir)
        run = checkpoints.run(step)
        run["config"]["predict"].update(overrides)
        network = build_network(
            run["config"]["model"],
            num_classes=len(run["outputs"]),
            backend=jax.default_backend(),
            device_count=run["config"]["predict"].get("spatial", 1),
        )
        optimizer = _optimizer(run)
        abstract = jax.eval_shape(
            lambda key: initial_state(key, network, optimizer), jax.random.key(0)
        )
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        state, _ = checkpoints.restore(step, with_sharding(abstract, here))
    return FinishedRun(network, state, run, workdir)


def finished_state(variables: Mapping[str, Any], run: Mapping[str, Any]) -> TrainState:
    """Weights `{params, batch_stats}` of elsewhere as the state of a finished run."""
    params = jax.tree.map(jnp.asarray, variables["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, variables["batch_stats"]),
        opt_state=_optimizer(run).init(params),
    )


def _optimizer(run: Mapping[str, Any]) -> optax.GradientTransformation:
    """One with a state of the run's shape; its schedule plays no part any more."""
    fields = dict(run["config"]["optimizer"])
    fields.pop("decay_every_epochs")
    return make_optimizer(decay_every_steps=1, **fields)


def _step(checkpoints: Checkpoints, wanted: str, workdir: Path) -> int:
    steps = checkpoints.steps()
    if wanted == "latest":
        return steps[-1]
    if wanted == "best":
        best = checkpoints.best()
        return steps[-1] if best is None else best
    if wanted.isdecimal() and int(wanted) in steps:
        return int(wanted)
    raise BadArguments(
        f"config.predict.checkpoint={wanted!r} is neither best, latest nor a step of "
        f"{workdir}, which has: {', '.join(map(str, steps))}"
    )


# What may be trained anew: the layers whose size is the number of outputs.
HEAD = ("supervision_", "fusion")


def begin_from(
    source: FinishedRun, state: TrainState, outputs: tuple[str, ...]
) -> tuple[TrainState, list[str]]:
    """(`state` with the source's parameters and statistics, names of what is new).

    The optimizer begins anew. Where `outputs` are not the source's, the head keeps its
    random values: as many outputs of another meaning are no beginning.
    """
    given, begun = _arrays(source.state), _arrays(state)
    taken, new = {}, []
    for path, fresh in begun.items():
        old = given.get(path)
        if outputs != source.outputs and path.split("/")[1].startswith(HEAD):
            taken[path] = fresh
            new.append(path)
        elif old is not None and old.shape == fresh.shape:
            # By way of the host: with several processes each has its own copy.
            taken[path] = jax.device_put(np.asarray(old), fresh.sharding)
        else:
            raise BadArguments(f"config.init_from={source.workdir}: no {path} there")
    variables = unflatten_dict(taken, sep="/")
    return state.replace(**variables), new  # pyright: ignore[reportAttributeAccessIssue]


def _arrays(state: TrainState) -> dict[str, Any]:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return flatten_dict(variables, sep="/")
