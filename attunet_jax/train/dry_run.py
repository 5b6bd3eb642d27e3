"""A prepared run in, what it would take out as text; nothing trained or written."""

from collections import Counter
from typing import Any

import jax

from attunet_jax.sharding import data_shard, to_global
from attunet_jax.train.beginning import Run, batches_from
from attunet_jax.train.compiled import compile_step
from attunet_jax.train.state import parameter_count


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
