"""A config and a mesh in, its compiled train step out, without any data set.

The mesh may be of devices that are not here: everything is made of shapes alone.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from attunet_jax.checkpoint import with_sharding
from attunet_jax.data.dataset import Dataset
from attunet_jax.sharding import batch_shardings, replicated
from attunet_jax.train.beginning import check_fits_mesh
from attunet_jax.train.compiled import compile_step
from attunet_jax.train.plan import Plan, make_plan
from attunet_jax.train.state import TrainState, initial_state


def rehearse(config: Any, mesh: Any) -> tuple[Any, TrainState]:
    """(the compiled step, shapes of the state).

    Raises `BadArguments` for a config that could not be trained on `mesh`.
    """
    if not _is_cpu(mesh) and config.model.convolution == "auto":
        # "auto" would look at the machine that compiles.
        config.model.convolution = "compiler"
    plan, state, batch = shapes_of(config, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = with_sharding(key, replicated(mesh))
    # Nothing will run: the last stage, to machine code, may take the short way.
    quick = {"xla_backend_optimization_level": 0} if _is_cpu(mesh) else None
    with jax.set_mesh(mesh):
        return compile_step(plan, mesh, state, batch, key, quick), state


def shapes_of(config: Any, mesh: Any) -> tuple[Plan, TrainState, dict[str, Any]]:
    """(plan, state, global batch), the last two as shapes laid out on `mesh`."""
    plan = make_plan(config, _stand_in(config), mesh.size)
    check_fits_mesh(config, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    begin = partial(initial_state, network=plan.network, optimizer=plan.optimizer)
    state = with_sharding(jax.eval_shape(begin, key), replicated(mesh))
    batch = batch_shapes(config.data.batch_size, tuple(config.data.read_shape))
    shardings = batch_shardings(mesh, batch)
    return plan, state, {k: with_sharding(x, shardings[k]) for k, x in batch.items()}


def _is_cpu(mesh: Any) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def batch_shapes(
    count: int, read_shape: tuple[int, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Of a global batch as the pipeline makes it."""
    a_case, an_axis = (count,), (count, 3)
    shape = jax.ShapeDtypeStruct
    return {
        "image_hu": shape((count, *read_shape), jnp.int16),
        "label": shape((count, *read_shape), jnp.uint8),
        "mean_hu": shape(a_case, jnp.float32),
        "std_hu": shape(a_case, jnp.float32),
        "scan_start": shape(an_axis, jnp.int32),
        "scan_size": shape(an_axis, jnp.int32),
        "case_index": shape(a_case, jnp.int32),
    }


def _stand_in(config: Any) -> Dataset:
    """As much of a data set as a plan asks for: one case with all organs."""
    organs = {name: i for i, name in enumerate(config.classes) if i}
    return Dataset(
        directory=Path("(no data set)"),
        manifest={"organs": organs, "spacing_mm": [1.0] * 3, "settings": {}},
        splits={config.data.split: {"train": ("case",), "validation": (), "test": ()}},
        manifest_sha256="",
    )
