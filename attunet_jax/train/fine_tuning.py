"""A finished run and an untrained state in, a state that begins where it ended out."""

from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from attunet_jax.errors import BadArguments
from attunet_jax.train.finished import FinishedRun
from attunet_jax.train.state import TrainState

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
