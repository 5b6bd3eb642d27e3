"""Compiles the train step ahead of time, and reads what a compiled program needs.

The step is compiled from shapes alone: without a data set, and for devices that may not
be here. Of a compiled program: its memory, FLOP and collectives.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from attunet_jax.checkpoint import with_sharding
from attunet_jax.data.batch import batch_schema
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import batch_shardings, replicated
from attunet_jax.errors import BadArguments
from attunet_jax.ops import dispatch
from attunet_jax.train.config_checks import Config, check_config, check_fits_mesh
from attunet_jax.train.experiment import Training, compile_step, make_training
from attunet_jax.train.hlo_types import arrays_of, bits_of
from attunet_jax.train.state import TrainState

Shapes = dict[str, jax.ShapeDtypeStruct]


def compile_ahead_of_time(
    config: Config, mesh: Mesh
) -> tuple[jax.stages.Compiled, TrainState]:
    """Returns (the compiled train step, shapes of the state).

    Raises `BadArguments` for a config that could not be trained on `mesh`.
    """
    training, state, batch = training_shapes(config, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = with_sharding(key, replicated(mesh))
    # Nothing will run: the last stage, to machine code, need not optimise.
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if is_cpu else None
    with jax.set_mesh(mesh):
        return compile_step(training, mesh, state, batch, key, options), state


def compile_forward(
    config: Config, mesh: Mesh
) -> tuple[jax.stages.Compiled, TrainState]:
    """Returns (the compiled forward pass of prediction, shapes of the state).

    Its batch is one of normalised crops. Raises as `compile_ahead_of_time`.
    """
    training, state, _ = training_shapes(config, mesh)
    shape = (config.data.batch_size, *config.data.crop_shape, 1)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    images = with_sharding(image, batch_shardings(mesh, {"image": image})["image"])

    def forward(variables: Any, images: jax.Array) -> Any:
        return training.network.apply(variables, images, train=False)

    with jax.set_mesh(mesh):
        lowered = jax.jit(forward).lower(state.variables, images)
        options = dispatch.compiler_options(training.network.convolution)
        return lowered.compile(compiler_options=options), state


def training_shapes(config: Config, mesh: Mesh) -> tuple[Training, TrainState, Shapes]:
    """Returns (training, state, global batch), the last two as shapes on `mesh`."""
    check_config(config)
    check_fits_mesh(config, mesh)
    if not config.classes:
        raise BadArguments("without a data set --config.classes=... is needed")
    training = make_training(config, LabelMap.numbered(config.classes[1:]), mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(training.create_state, key)
    schema = batch_schema(config.data.batch_size, config.data.read_shape)
    batch = {name: jax.ShapeDtypeStruct(*spec) for name, spec in schema.items()}
    shardings = batch_shardings(mesh, batch)
    return (
        training,
        with_sharding(state, replicated(mesh)),
        {name: with_sharding(x, shardings[name]) for name, x in batch.items()},
    )


@dataclass(frozen=True)
class Cost:
    """What one device needs; all but the FLOP in bytes."""

    arguments: int  # state and batch
    temporaries: int  # activations, gradients, and results that replace no argument
    peak: int | None  # most of both that is alive at once; None if not reported
    flops: float | None  # multiplications and additions; None if not reported
    collectives: dict[str, tuple[int, int]]  # kind -> (count, bytes of the results)


def cost_of(compiled: jax.stages.Compiled) -> Cost:
    """Reads the compiler's analysis. Operations in loops count once."""
    memory = compiled.memory_analysis()
    assert memory is not None, "the compiler reports no memory"
    collectives: dict[str, list[int]] = defaultdict(list)
    for each in collectives_of(compiled.as_text() or ""):
        collectives[each.kind].append(each.bytes)
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    arguments = memory.argument_size_in_bytes
    # A CPU reports the arguments alone: its temporaries are one block.
    peak = getattr(memory, "peak_memory_in_bytes", 0)
    return Cost(
        arguments=arguments,
        temporaries=memory.temp_size_in_bytes + new,
        peak=peak if peak > 2 * arguments else None,
        flops=(compiled.cost_analysis() or {}).get("flops"),
        collectives={k: (len(v), sum(v)) for k, v in collectives.items()},
    )


KINDS = (
    "collective-permute",
    "all-reduce",
    "reduce-scatter",
    "all-gather",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One collective operation of a step, as each device sees it."""

    kind: str  # one of KINDS
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (type, shape) of its results
    source: str  # the operation of the model that it comes from

    @property
    def bytes(self) -> int:
        """Size of its results on one device."""
        return sum(bits_of(kind) * math.prod(shape) // 8 for kind, shape in self.arrays)

    def __str__(self) -> str:
        shapes = ", ".join(f"{t}[{','.join(map(str, s))}]" for t, s in self.arrays)
        return f"{self.kind} of {shapes} in {self.source}"


def collectives_of(hlo: str) -> list[Collective]:
    """Parses a compiled module's text; a collective inside a loop counts once."""
    found = []
    for line in hlo.splitlines():
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        result, kind, start = match.groups()
        arrays = tuple(arrays_of(result))
        if start and kind in ("collective-permute", "all-gather"):
            # (operands, results, contexts), with several arrays each if combined.
            arrays = tuple(each for each in arrays if each[1])
            arrays = arrays[len(arrays) // 2 :]
        elif start and result.startswith("(("):  # ((operands), results) on GPUs
            arrays = arrays[len(arrays) // 2 :]
        source = _SOURCE.search(line)
        found.append(Collective(kind, arrays, source[1] if source else "?"))
    return found
