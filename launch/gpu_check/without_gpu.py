"""Compiles a train step for an H100 on a machine without one; prints what it moves.

    python -m launch.gpu_check.without_gpu NETWORK DTYPE [DATAxSPATIAL [D,H,W [BATCH]]]

Needs no driver, but jax's CUDA plug-in of jaxlib's version (730 MB):

    pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt \\
        nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt

XLA_FLAGS are the compiler's, such as --xla_gpu_force_conv_nhwc=true; HLO=FILE keeps the
program. Bytes are those of all operands and results of each kernel, read or written
once; a kernel that reads a slice counts the slice alone. cuDNN's workspaces and changes
of layout, which it chooses on the device, are not counted.
"""

import importlib
import math
import os
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from configs.base import PAPER_CLASSES

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0"
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
BITS = {"pred": 8, "bf16": 16}
FREE = (  # operations that move nothing
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "constant",
    "after-all",
    "partition-id",
    "replica-id",
)
PARTS = (  # the first that matches the name of the operation in the model
    (
        "upsampling and joining",
        r"decoder_\d/conv_1/.*"
        r"(concatenate|split|select_n|pad|mul|add|convert|slice|reshape|branch)",
    ),
    ("deep supervision", r"supervis|fusion"),
    ("gates", r"gate_|gating_signal"),
    (
        "norm, ReLU, statistics",
        r"norm|conv_2/|(encoder|decoder)_\d/|bottleneck/",
    ),
    ("max pool", r"UNet3D.*_where"),
    ("loss", r"jvp\(\)"),
)
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
Sums = dict[str, list[float]]


def nbytes(text: str) -> int:
    """Returns the bytes of the arrays of a type in HLO text."""
    plain = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", text)
    return sum(
        BITS.get(kind, int("0" + re.sub(r"\D", "", kind[:4])))
        // 8
        * math.prod(int(n) for n in sizes.split(",") if n)
        for kind, sizes in re.findall(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]", plain)
    )


def kernels(hlo: str) -> list[tuple[str, str, int]]:
    """Returns (kind, operation in the model, bytes) of every kernel."""
    types: dict[str, str] = {}
    found, inside = [], False
    for line in hlo.splitlines():
        if line.startswith("ENTRY"):
            inside = True
        match = INSTRUCTION.match(line)
        if not (inside and match):
            continue
        name, kind_of, operation, rest = match.groups()
        types[name] = kind_of
        if operation in FREE:
            continue
        operands = dict.fromkeys(re.findall(r"%([\w.\-]+)", rest.split(")")[0]))
        read = sum(nbytes(types.get(a, "")) for a in operands)
        written = nbytes(kind_of)
        if re.search(r"compare_slice|wrapped_slice|wrapped_dynamic", name):
            read = min(read, written)
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        layout = re.search(r"dim_labels=(\S+?),", rest)
        label = re.sub(r"[.\d]+$", "", name) if operation == "fusion" else operation
        if target:
            label = target[1] + (" " + layout[1] if layout else "")
        source = re.search(r'op_name="([^"]*)"', rest)
        found.append((label, source[1] if source else "", read + written))
    return found


def part_of(label: str, source: str) -> str:
    """Returns the part of the network that a kernel computes."""
    if "cudnn" in label:
        return "convolutions"
    for name, pattern in PARTS:
        if re.search(pattern, source):
            return name
    return "outside the network"


def table(title: str, sums: Sums, total: float, most: int) -> None:
    print(f"\n{title}")
    for name, (count, size) in sorted(sums.items(), key=lambda x: -x[1][1])[:most]:
        print(f"{count:5.0f} {size / 1e9:8.2f} GB {size / total:6.1%}  {name}")


def main(
    network: str = "attention_unet",
    dtype: str = "bfloat16",
    mesh: str = "1x1",
    crop: str = "96,160,160",
    batch: str = "2",
) -> None:
    # Before jax is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

    from jax.experimental import topologies

    from attunet_jax.distributed.mesh import make_mesh
    from attunet_jax.train.aot import collectives_of, compile_ahead_of_time

    data, spatial = map(int, mesh.split("x"))
    devices = topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=f"1x1x{data * spatial}"
    ).devices
    config = importlib.import_module(f"configs.{network}").get_config()
    config.classes = PAPER_CLASSES
    config.model.compute_dtype, config.data.batch_size = dtype, int(batch)
    depth, height, width = config.data.crop_shape = tuple(map(int, crop.split(",")))
    config.data.read_shape = (depth, height * 13 // 10, width * 13 // 10)
    config.mesh.data, config.mesh.spatial = data, spatial
    start = time.perf_counter()
    mesh_of_gpus = make_mesh(data, spatial, devices)
    compiled: Any = compile_ahead_of_time(config, mesh_of_gpus)[0]
    hlo, memory = compiled.as_text(), compiled.memory_analysis()
    if "HLO" in os.environ:
        Path(os.environ["HLO"]).write_text(hlo)
    found = kernels(hlo)
    total = sum(size for *_, size in found)
    print(
        f"{network} {dtype} {mesh}, {batch} of {crop}: compiled in "
        f"{time.perf_counter() - start:.0f} s; {len(found)} kernels, "
        f"{sum(size < 1e6 for *_, size in found)} of them below 1 MB; "
        f"{total / 1e9:.1f} GB: {total / 3.0e9:.1f} ms at an H100's 3.0 TB/s, "
        f"{total / 4.3e9:.1f} at an H200's 4.3"
    )
    print(
        f"memory MiB: arguments {memory.argument_size_in_bytes / 2**20:,.0f}, "
        f"temporaries {memory.temp_size_in_bytes / 2**20:,.0f}, "
        f"peak {memory.peak_memory_in_bytes / 2**20:,.0f}"
    )
    parts: Sums = defaultdict(lambda: [0, 0.0])
    labels: Sums = defaultdict(lambda: [0, 0.0])
    for label, source, size in found:
        for sums in (parts[part_of(label, source)], labels[label]):
            sums[0], sums[1] = sums[0] + 1, sums[1] + size
    table("by part of the network", parts, total, 20)
    table("by kind of kernel", labels, total, 16)
    messages: Sums = defaultdict(lambda: [0, 0])
    for each in collectives_of(hlo):
        sums = messages[each.kind]
        sums[0], sums[1] = sums[0] + 1, sums[1] + each.bytes
    totals = (
        f"{kind}: {count}, {size / 2**20:.1f} MiB"
        for kind, (count, size) in messages.items()
    )
    print("\n" + ("; ".join(totals) or "no messages"))


if __name__ == "__main__":
    main(*sys.argv[1:])
