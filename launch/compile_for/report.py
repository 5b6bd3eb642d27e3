"""What a compiled train step needs on one device, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.benchmark.flops import Work, forward_work, network_operations, train_work
from launch.compile_for.cards import REACHED, Card
from launch.compile_for.kernels import Kernel, total_bytes, total_launches
from launch.compile_for.parts import by_part, part_of
from launch.compile_for.topology import Topology

MIB = 2**20
SMALL = 1e6  # bytes of a kernel that its launch takes longer than
ONLY_FOR_CPU = (
    "Compiled for CPU: this shows how memory and messages change with the number of "
    "devices,\nnever what a TPU or GPU needs (a TPU took 4 times as much where both "
    "were compiled)."
)
LEFT_OUT = (
    "Left out, because it is decided on the device: cuDNN's workspaces and changes of "
    "layout,\nthe algorithms that autotuning picks, the time of launches and messages, "
    "caches that hold\nan array between two kernels."
)


def of_devices(topology: Topology, config: Any, mesh: Any, state: Any) -> dict:
    """What is compiled and for which devices, as lines by their names."""
    from attunet_jax.train.state import parameter_count

    kind = "TPU chip"
    if topology.card:
        kind = topology.card.name
        if topology.hosts > 1:
            kind += f" in {topology.hosts} hosts"
    elif topology.platform == "cpu":
        kind = "simulated CPU device"
    return {
        "topology": f"{topology.name}, {topology.count} x {kind}",
        "mesh": "  ".join(f"{name} {count}" for name, count in mesh.shape.items()),
        "batch": f"{config.data.batch_size} of {_size(config.data.crop_shape)}, "
        f"read as {_size(config.data.read_shape)}",
        "network": f"{parameter_count(state.params):,} parameters, "
        f"{config.model.compute_dtype}, "
        + ("rematerialised" if config.model.remat else "not rematerialised"),
    }


def of_cost(cost: Any, call: str = "a step") -> dict[str, str]:
    """Memory and messages; FLOP as the compiler counts them, where it does."""
    lines = {
        "memory a device": f"{(cost.arguments + cost.temporaries) / MIB:,.1f} MiB: "
        f"arguments {cost.arguments / MIB:,.1f}, temporaries "
        f"{cost.temporaries / MIB:,.1f}"
        + (f"; {cost.peak / MIB:,.1f} alive at the peak" if cost.peak else ""),
        "work a device": "unknown"
        if cost.flops is None
        else f"{cost.flops / 1e9:,.2f} GFLOP {call}",
    }
    for kind, (count, sent) in sorted(cost.collectives.items()):
        lines[kind] = f"{count} {call}, {sent / MIB:,.3f} MiB a device"
    if not cost.collectives:
        lines["messages"] = "none"
    return lines


def work_a_device(config: Any, mesh: Mapping[str, int], is_step: bool) -> Work:
    """FLOP and least bytes of one device's share of a step or a forward pass."""
    data = config.data
    depth, height, width = data.crop_shape
    shape = (depth // mesh["spatial"], height, width)
    rows, classes = data.batch_size // mesh["data"], len(config.classes)
    operations = network_operations(config.model, classes, rows, shape)
    if not is_step:
        return forward_work(operations)
    return train_work(operations, classes, rows, shape)


def of_gpu(
    card: Card,
    dtype: str,
    cost: Any,
    work: Work,
    kernels: Sequence[Kernel],
    call: str = "a step",
) -> dict[str, str]:
    """Kernels, bytes and the least time, as lines by their names."""
    moved = total_bytes(kernels)
    small = total_launches(k for k in kernels if k.bytes < SMALL)
    turning = [kernel for kernel in kernels if kernel.transposes]
    bandwidth, peak = card.reached_bandwidth, card.dense_flop_per_s[dtype]
    by_bytes_s, by_flop_s = moved / bandwidth, work.flop / peak
    lines = of_cost(cost, call)
    lines["memory a device"] += (
        f", {cost.peak / card.memory_bytes:.0%} of the card's "
        f"{card.memory_bytes / 1e9:.0f} GB"
    )
    lines["work a device"] = f"{work.flop / 1e9:,.0f} GFLOP {call}, in closed form"
    messages = {name: lines.pop(name) for name in list(lines)[2:]}
    return lines | {
        "kernels": f"{total_launches(kernels):,} {call}, {small:,} of them move less "
        f"than {SMALL / 1e6:.0f} MB",
        "bytes a device": f"{moved / 1e9:,.2f} GB {call}; {work.bytes / 1e9:,.2f} GB "
        "are the least if no array fits a cache",
        "transposes": f"{total_launches(turning):,} kernels, "
        f"{total_bytes(turning) / 1e9:,.2f} GB",
        **messages,
        "time at least": f"{1e3 * max(by_bytes_s, by_flop_s):,.2f} ms {call}: bytes "
        f"{1e3 * by_bytes_s:,.2f} ms at {bandwidth / 1e12:.2f} TB/s ({REACHED} of the "
        f"data sheet's {card.bandwidth / 1e12:.2f}: assumed),",
        "": f"FLOP {1e3 * by_flop_s:,.2f} ms at {peak / 1e12:,.0f} TFLOP/s (the data "
        f"sheet's dense {'TF32' if dtype == 'float32' else dtype})",
    }


def table_of_parts(card: Card, kernels: Sequence[Kernel]) -> str:
    """Bytes, least time and kernels by part of the network."""
    total = max(total_bytes(kernels), 1)
    lines = ["moved by           GB  share     ms  kernels"]
    for part, (count, moved) in by_part(kernels).items():
        lines.append(
            f"{moved / 1e9:21.2f} {moved / total:6.1%} "
            f"{1e3 * moved / card.reached_bandwidth:6.2f} {count:8,}  {part}"
        )
    return "\n".join(lines)


def table_of_kernels(kernels: Sequence[Kernel], most: int) -> str:
    """The kernels that move most, with their place in the model."""
    lines = ["     MB  kernel | part | operation"]
    ranked = sorted(kernels, key=lambda kernel: -kernel.bytes * kernel.times)
    for kernel in ranked[:most]:
        part = part_of(kernel, kernel.source)
        times = f"{kernel.times} x " if kernel.times > 1 else ""
        lines.append(
            f"{kernel.bytes * kernel.times / 1e6:7,.1f}  {times}{kernel.kind}"
            f"{' (transposes)' if kernel.transposes else ''} | {part} | {kernel.source}"
        )
    return "\n".join(lines)


def as_text(lines: Mapping[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
