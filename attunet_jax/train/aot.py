"""A config and a mesh in, its compiled train step out, without any data set.

The mesh may be of devices that are not here: everything is made of shapes alone.

A prepared run in, what it would take out as text; nothing trained or written.

A compiled program in; its memory, its work and its messages on one device out.

A compiled program's text in; what its devices say to each other out.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from attunet_jax.checkpoint import with_sharding
from attunet_jax.data.batch import batch_schema
from attunet_jax.data.dataset import Dataset
from attunet_jax.distributed.mesh import (
    batch_shardings,
    data_shard,
    replicated,
    to_global,
)
from attunet_jax.train.experiment import Plan, compile_step, make_plan
from attunet_jax.train.setup import Run, batches_from, check_fits_mesh
from attunet_jax.train.state import TrainState, initial_state, parameter_count


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
    schema = batch_schema(config.data.batch_size, config.data.read_shape)
    batch = {name: jax.ShapeDtypeStruct(*spec) for name, spec in schema.items()}
    shardings = batch_shardings(mesh, batch)
    return plan, state, {k: with_sharding(x, shardings[k]) for k, x in batch.items()}


def _is_cpu(mesh: Any) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _stand_in(config: Any) -> Dataset:
    """As much of a data set as a plan asks for: one case with all organs."""
    organs = {name: i for i, name in enumerate(config.classes) if i}
    return Dataset(
        directory=Path("(no data set)"),
        manifest={"organs": organs, "spacing_mm": [1.0] * 3, "settings": {}},
        splits={config.data.split: {"train": ("case",), "validation": (), "test": ()}},
        manifest_sha256="",
    )


def dry_run(run: Run) -> str:
    """Compiles the train step for these devices and says what it would need.

    All processes call it; each gets the same text.
    """
    batches = batches_from(run, 0)
    with jax.set_mesh(run.mesh):
        try:
            batch = to_global(next(batches), run.mesh)
        finally:
            batches.close()
        abstract = run.abstract_state
        compiled = compile_step(run.plan, run.mesh, abstract, batch, run.step_key)
    data, plan = run.config.data, run.plan
    kinds = Counter(device.device_kind for device in jax.devices())
    per_host = Counter(zip(run.hosts, range(len(run.hosts)), strict=True))
    rows = data.batch_size // data_shard(run.mesh)[1]
    lines = {
        "mesh": "  ".join(f"{k} {n}" for k, n in run.mesh.shape.items()),
        "processes": ", ".join(f"{i} on {host}" for host, i in per_host),
        "devices": f"{jax.device_count()} ({_counted(kinds)}), "
        f"{jax.local_device_count()} a process, {run.mesh.size} in use",
        "batch": f"{data.batch_size} cases of {_size(data.crop_shape)}, "
        f"{rows} read by each process",
        "parameters": f"{parameter_count(abstract.params):,}",
        "cases": f"{len(plan.train_ids)} training, "
        f"{len(plan.validation_ids)} validation",
        "steps": f"{plan.steps:,}",
        **_memory(compiled),
    }
    width = max(map(len, lines))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
    if jax.default_backend() == "cpu":
        text += (
            "\nThe memory is that of the program compiled for CPU: it shows how memory "
            "scales with devices,\nnot what a GPU or TPU needs (TPU layouts took 4 "
            "times as much where both were compiled)."
        )
    return text + "\nDry run: nothing was trained or written."


def _memory(compiled: Any) -> dict[str, str]:
    """From the compiler; empty where the backend does not tell."""
    told = compiled.memory_analysis()
    if told is None:
        return {}
    mib = 2**20
    state_and_batch = told.argument_size_in_bytes
    new = told.output_size_in_bytes - told.alias_size_in_bytes
    work = told.temp_size_in_bytes + new
    found = {
        "memory per device": f"{(state_and_batch + work) / mib:,.1f} MiB: "
        f"state and batch {state_and_batch / mib:,.1f}, work {work / mib:,.1f}"
    }
    stats = jax.local_devices()[0].memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        found["memory there is"] = f"{limit / mib:,.1f} MiB a device"
    return found


def _counted(kinds: Counter) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _size(shape: Any) -> str:
    return "x".join(map(str, shape))


@dataclass(frozen=True)
class Cost:
    """All of one device; bytes but for the work."""

    arguments: int  # state and batch
    temporaries: int  # activations, gradients, and results that replace no argument
    peak: int | None  # most of both that is alive at once; None where not told
    flops: float | None  # multiplications and additions; None where not told
    messages: dict[str, tuple[int, int]]  # kind -> (count, bytes of its results)


def cost_of(compiled: Any) -> Cost:
    """`compiled` is a `jax.stages.Compiled`. Operations in loops count once."""
    memory = compiled.memory_analysis()
    messages: dict[str, list[int]] = defaultdict(list)
    for each in collectives_of(compiled.as_text()):
        messages[each.kind].append(each.bytes)
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    arguments = memory.argument_size_in_bytes
    # CPU tells the arguments alone: there all temporaries are one block.
    peak = getattr(memory, "peak_memory_in_bytes", 0)
    return Cost(
        arguments=arguments,
        temporaries=memory.temp_size_in_bytes + new,
        peak=peak if peak > 2 * arguments else None,
        flops=(compiled.cost_analysis() or {}).get("flops"),
        messages={k: (len(v), sum(v)) for k, v in messages.items()},
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
_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One exchange of a step, as each device sees it."""

    kind: str  # one of KINDS
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (type, shape) of what it yields
    source: str  # the operation of the model that it comes from

    @property
    def bytes(self) -> int:
        """Of its results on one device."""
        return sum(_bits(kind) * math.prod(shape) // 8 for kind, shape in self.arrays)

    def __str__(self) -> str:
        shapes = ", ".join(f"{t}[{','.join(map(str, s))}]" for t, s in self.arrays)
        return f"{self.kind} of {shapes} in {self.source}"


def collectives_of(hlo: str) -> list[Collective]:
    """All of a compiled module's text, in its order; one inside a loop counts once."""
    found = []
    for line in hlo.splitlines():
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        result, kind, start = match.groups()
        # Layouts and comments have numbers and brackets of their own.
        plain = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", result)
        arrays = tuple(
            (name, tuple(int(n) for n in sizes.split(",") if n))
            for name, sizes in _SHAPE.findall(plain)
        )
        if start and kind in ("collective-permute", "all-gather"):
            # (what goes in, what comes out, contexts): several at once if combined.
            arrays = tuple(each for each in arrays if each[1])
            arrays = arrays[len(arrays) // 2 :]
        source = _SOURCE.search(line)
        found.append(Collective(kind, arrays, source[1] if source else "?"))
    return found


def _bits(name: str) -> int:
    if name in _BITS:
        return _BITS[name]
    digits = re.match(r"[a-z]+(\d+)", name)
    return int(digits[1]) if digits else 0
