r"""Compiles the train step for other devices and prints what it needs there.

    python -m launch.compile_for --topology=cpu:1x8 --config=configs/attention_unet.py \
        --config.data.crop_shape=256,512,512 --config.data.batch_size=1
    python -m launch.compile_for --topology=v5e:2x4 --config.mesh.spatial=4 \
        --config.data.crop_shape=64,128,128

Prints memory, operations and messages of one device before anything is rented; needs
no data set and no accelerator. cpu:DATAxSPATIAL simulates that mesh: it shows how
memory and messages change with the number of devices, never what a TPU or GPU needs.
The name of a TPU (v5e:2x4, v5p:2x2x1: chips along each axis) uses the TPU's compiler,
from the extra "tpu", and takes minutes; --config.mesh.* says how its chips are used.
"""

import importlib.util
import math
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from attunet_jax.errors import BadArguments, BadData, one_line
from configs.base import PAPER_CLASSES
from launch import cli

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add(
    "topology",
    str,
    None,
    "cpu:DATAxSPATIAL or a TPU's, such as v5e:2x4.",
    required=True,
)

# The names of these generations count cores, two a chip; those of the others chips.
_TWO_CORES_A_CHIP = ("v2", "v3", "v4", "v5p")
MIB = 2**20


@dataclass(frozen=True)
class Topology:
    """The devices to compile for."""

    name: str
    platform: str  # "cpu" or a TPU's generation
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.sizes)


def parse_topology(name: str) -> Topology:
    """Raises `BadArguments` for what is neither a simulated mesh nor a TPU's name."""
    match = re.fullmatch(r"(cpu|v\d+[a-z]*):(\d+(?:x\d+)*)", name)
    sizes = tuple(map(int, match[2].split("x"))) if match else ()
    if match is None or min(sizes) < 1 or (match[1] == "cpu" and len(sizes) != 2):
        raise BadArguments(
            f"--topology={name} is neither cpu:DATAxSPATIAL, such as cpu:1x8, nor a "
            "TPU's, such as v5e:2x4 or v5p:2x2x1"
        )
    return Topology(name, match[1], sizes)


def environment_of(topology: Topology) -> dict[str, str]:
    """Returns the variables to set before JAX is imported."""
    # A program from the cache reports less memory; a TPU's cannot be read from it.
    own = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if topology.platform == "cpu":
        count = f"--xla_force_host_platform_device_count={topology.count}"
        return own | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()}
    generation, count = topology.platform, topology.count
    if generation in _TWO_CORES_A_CHIP:
        count *= 2
    kind = {"v5e": "v5litepod"}.get(generation, generation)
    return own | {
        # This machine is no TPU: there is no metadata server to ask which.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind}-{count}",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }


def main(values: cli.Values) -> None:
    topology = parse_topology(values.topology)
    config = values.config
    if not config.classes:  # there is no data set to say them
        config.classes = PAPER_CLASSES
    given = values.fields
    if "data.read_shape" not in given:
        config.data.read_shape = config.data.crop_shape
    if topology.platform == "cpu":
        if "mesh.data" in given or "mesh.spatial" in given:
            raise BadArguments(
                f"--topology={topology.name} says the mesh; leave config.mesh out"
            )
        config.mesh.data, config.mesh.spatial = topology.sizes
    elif importlib.util.find_spec("libtpu") is None:
        raise BadArguments(
            f"--topology={topology.name} needs the TPU compiler: "
            "pip install -e '.[tpu]'"
        )
    os.environ.update(environment_of(topology))
    devices = _devices(topology)

    # Late: these import JAX, which now finds the requested devices.
    from attunet_jax.distributed.mesh import make_mesh
    from attunet_jax.train.aot import compile_ahead_of_time, cost_of

    mesh = make_mesh(
        config.mesh.data,
        config.mesh.spatial,
        devices,
        spatial_across_slices=config.mesh.spatial_across_slices,
    )
    start_s = time.perf_counter()
    print(f"compiling for {topology.name} ...", flush=True)
    try:
        compiled, state = compile_ahead_of_time(config, mesh)
    except RuntimeError as error:  # the compiler's own: JaxRuntimeError
        raise BadData(
            f"{topology.name}: does not compile: {one_line(error)[:600]}"
        ) from None
    print(report(topology, config, mesh, state, cost_of(compiled)))
    print(f"compiled in {time.perf_counter() - start_s:.0f} s; nothing was run")


def _devices(topology: Topology) -> Any:
    import jax

    if topology.platform == "cpu":
        return jax.devices()
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name
        ).devices
    except Exception as error:  # noqa: BLE001 - libtpu raises several kinds
        raise BadArguments(
            f"--topology={topology.name}: {one_line(error)[:300]}"
        ) from None


def report(topology: Topology, config: Any, mesh: Any, state: Any, cost: Any) -> str:
    """Returns what one device needs, as lines of text."""
    from attunet_jax.train.state import parameter_count

    def size(shape: Any) -> str:
        return "x".join(map(str, shape))

    lines = {
        "topology": f"{topology.name}, {topology.count} x "
        + ("simulated CPU device" if topology.platform == "cpu" else "TPU chip"),
        "mesh": "  ".join(f"{name} {count}" for name, count in mesh.shape.items()),
        "batch": f"{config.data.batch_size} of {size(config.data.crop_shape)}, read as "
        f"{size(config.data.read_shape)}",
        "network": f"{parameter_count(state.params):,} parameters, "
        f"{config.model.compute_dtype}, "
        + ("rematerialised" if config.model.remat else "not rematerialised"),
        "memory a device": f"{(cost.arguments + cost.temporaries) / MIB:,.1f} MiB: "
        f"arguments {cost.arguments / MIB:,.1f}, temporaries "
        f"{cost.temporaries / MIB:,.1f}"
        + (f"; {cost.peak / MIB:,.1f} alive at the peak" if cost.peak else ""),
        "work a device": "unknown"
        if cost.flops is None
        else f"{cost.flops / 1e9:,.2f} GFLOP a step",
    }
    for kind, (count, sent) in sorted(cost.collectives.items()):
        lines[kind] = f"{count} a step, {sent / MIB:,.3f} MiB a device"
    if not cost.collectives:
        lines["messages"] = "none"
    width = max(map(len, lines))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
    if topology.platform == "cpu":
        text += (
            "\nCompiled for CPU: this shows how memory and messages change with the "
            "number of devices,\nnever what a TPU or GPU needs (a TPU took 4 times as "
            "much where both were compiled)."
        )
    return text


if __name__ == "__main__":
    cli.run(FLAGS, main)
