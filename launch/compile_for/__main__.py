r"""Compiles the train step for other devices and prints what it needs there.

    python -m launch.compile_for --topology=cpu:1x8 --config=configs/attention_unet.py \
        --config.data.crop_shape=256,512,512 --config.data.batch_size=1
    python -m launch.compile_for --topology=v5e:2x4 --config.mesh.spatial=4 \
        --config.data.crop_shape=64,128,128
    python -m launch.compile_for --topology=h100:8 --config.data.batch_size=8 \
        --config.model.compute_dtype=bfloat16

Prints memory, operations and messages of one device before anything is rented; needs
no data set and no accelerator. cpu:DATAxSPATIAL simulates that mesh: it shows how
memory and messages change with the number of devices, never what a TPU or GPU needs.
The name of a TPU (v5e:2x4, v5p:2x2x1: chips along each axis) uses the TPU's compiler,
from the extra "tpu", and takes minutes; --config.mesh.* says how its chips are used.
A card with a number of GPUs, or of hosts and GPUs (h100:8, h200:4x8, b200:8, a100:8),
uses XLA's compiler for GPUs, from the extra "compile_gpu", and takes minutes: it prints
kernels, the bytes that they move by part of the network, and the least time of a step
on that card as well.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.files import write_text
from configs.base import PAPER_CLASSES
from launch import cli
from launch.compile_for.topology import (
    Topology,
    check_compiler,
    devices_of,
    environment_of,
    parse_topology,
)
from launch.flag_types import whole_number

STEP, FORWARD = "train_step", "forward"

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add(
    "topology",
    str,
    None,
    "cpu:DATAxSPATIAL, a TPU's, such as v5e:2x4, or CARD:GPUS, such as h100:8.",
    required=True,
)
FLAGS.add(
    "kernels", whole_number, 0, "For GPUs: list so many kernels, those that move most."
)
FLAGS.add(
    "program",
    str,
    STEP,
    "What to compile; forward is prediction's pass over a batch of crops.",
    choices=(STEP, FORWARD),
)
FLAGS.add("hlo", Path, None, "File for the compiled program's text.")


def main(values: cli.Values) -> None:
    topology = parse_topology(values.topology)
    config = values.config
    if not config.classes:  # there is no data set to say them
        config.classes = PAPER_CLASSES
    given = values.fields
    if "data.read_shape" not in given and "data.crop_shape" in given:
        config.data.read_shape = config.data.crop_shape
    if topology.platform == "cpu":
        if "mesh.data" in given or "mesh.spatial" in given:
            raise BadArguments(
                f"--topology={topology.name} says the mesh; leave config.mesh out"
            )
        config.mesh.data, config.mesh.spatial = topology.sizes
    if values.kernels and not topology.card:
        raise BadArguments("--kernels: only programs for GPUs are read by kernels")
    if values.hlo and not values.hlo.absolute().parent.is_dir():
        raise BadArguments(f"--hlo={values.hlo}: there is no such folder")
    _check_slices(topology, config)
    check_compiler(topology)
    for name, value in environment_of(topology).items():
        os.environ[name] = value
    devices = devices_of(topology)

    # Late: these import JAX, which now finds the requested devices.
    from attunet_jax.distributed.mesh import make_mesh
    from attunet_jax.train import aot

    mesh = make_mesh(
        config.mesh.data,
        config.mesh.spatial,
        devices,
        spatial_across_slices=config.mesh.spatial_across_slices,
    )
    start_s = time.perf_counter()
    print(f"compiling for {topology.name} ...", flush=True)
    is_step = values.program == STEP
    compile_it = aot.compile_ahead_of_time if is_step else aot.compile_forward
    try:
        compiled, state = compile_it(config, mesh)
    except RuntimeError as error:  # the compiler's own: JaxRuntimeError
        raise _refusal(topology, one_line(error)[:600]) from None
    hlo = compiled.as_text() or ""
    if values.hlo:
        write_text(values.hlo, hlo)
    print(_report(topology, values, mesh, compiled, state, hlo))
    print(f"compiled in {time.perf_counter() - start_s:.0f} s; nothing was run")


def _check_slices(topology: Topology, config: Any) -> None:
    """Refuses what training refuses: devices to compile for do not tell their host."""
    spatial, a_host = config.mesh.spatial, topology.count // topology.hosts
    if topology.hosts == 1 or a_host % spatial == 0:
        return
    if not config.mesh.spatial_across_slices:
        raise BadArguments(
            f"--config.mesh.spatial={spatial}: would split a depth over the network "
            f"between {topology.hosts} hosts of {a_host} GPUs: use a divisor of "
            "these, or, slowly, --config.mesh.spatial_across_slices=True"
        )


def _refusal(topology: Topology, message: str) -> BadArguments | BadData:
    if topology.card and ("ptxas" in message or "compute capability" in message):
        return BadArguments(
            f"--topology={topology.name}: this version of XLA does not compile for "
            f"compute capability {topology.card.compute_capability} ({message[:200]})"
        )
    return BadData(f"{topology.name}: does not compile: {message}")


def _report(
    topology: Topology,
    values: cli.Values,
    mesh: Any,
    compiled: Any,
    state: Any,
    hlo: str,
) -> str:
    from attunet_jax.train.aot import cost_of
    from launch.compile_for import report
    from launch.compile_for.kernels import kernels_of

    config, card = values.config, topology.card
    is_step = values.program == STEP
    call = "a step" if is_step else "a pass"
    lines, cost = report.of_devices(topology, config, mesh, state), cost_of(compiled)
    if card is None:
        text = report.as_text(lines | report.of_cost(cost, call))
        return text + (f"\n{report.ONLY_FOR_CPU}" if topology.platform == "cpu" else "")
    kernels = kernels_of(hlo)
    cost = replace(cost, peak=compiled.memory_analysis().peak_memory_in_bytes)
    work = report.work_a_device(config, mesh.shape, is_step)
    dtype = config.model.compute_dtype
    lines |= report.of_gpu(card, dtype, cost, work, kernels, call)
    tables = [report.as_text(lines), report.table_of_parts(card, kernels)]
    if values.kernels:
        tables.append(report.table_of_kernels(kernels, values.kernels))
    return "\n\n".join([*tables, report.LEFT_OUT])


if __name__ == "__main__":
    cli.run(FLAGS, main)
