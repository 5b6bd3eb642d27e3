"""A finished run and an untrained state in, a state that begins where it ended out."""

from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from attunet_jax.errors import BadArguments
from attunet_jax.train.finished import FinishedRun
from attunet_jax.train.state import TrainState

# What may be trained anew: the layers whose size is the number of outputs.
HEAD = ("supervision_", "fusion")


def check_same_network(source: FinishedRun, model: dict, free: set[str]) -> None:
    """Raises `BadArguments` naming the fields of `config.model` that differ.

    Fields in `free` decide no parameter.
    """
    there = source.run["config"]["model"]
    differing = [
        f"model.{field} ({there.get(field)} there, {model[field]} here)"
        for field in sorted(model)
        if f"model.{field}" not in free and there.get(field) != model[field]
    ]
    if differing:
        raise BadArguments(
            f"config.init_from={source.workdir} was trained with another "
            f"{'; '.join(differing)}"
        )


def begin_from(source: FinishedRun, state: TrainState) -> tuple[TrainState, list[str]]:
    """(`state` with the source's parameters and statistics, names of what is new).

    The optimizer begins anew. A layer of the head with another number of outputs
    keeps its random values.
    """
    given, begun = _arrays(source.state), _arrays(state)
    taken, new = {}, []
    for path, fresh in begun.items():
        old = given.get(path)
        if old is not None and old.shape == fresh.shape:
            taken[path] = jax.device_put(old, fresh.sharding)
        elif path.split("/")[1].startswith(HEAD):
            taken[path] = fresh
            new.append(path)
        else:
            raise BadArguments(f"config.init_from={source.workdir}: no {path} there")
    variables = unflatten_dict(taken, sep="/")
    return state.replace(**variables), new  # pyright: ignore[reportAttributeAccessIssue]


def _arrays(state: TrainState) -> dict[str, Any]:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return flatten_dict(variables, sep="/")
