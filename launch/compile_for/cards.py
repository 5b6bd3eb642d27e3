"""Descriptions of GPUs: what XLA must know to compile for one, and its peaks.

Each is a file of cards/, NAME.toml, with the sources of its figures.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("cards")
# Of the data sheet's bandwidth, what a copy of large arrays reaches: an assumption.
REACHED = 0.9
# The same for every card since the A100: technical specifications per compute
# capability, CUDA C++ Programming Guide.
_EVERY_CARD = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "shared_memory_per_block": 49152,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
}
# Versions of CUDA and cuDNN on the machine that is compiled for: those that JAX's
# plug-in for CUDA 13 asks for, or later.
_CUDA, _CUDNN = "13.0.0", (9, 12, 0)


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    compute_capability: str  # "9.0", or "9.0a" with what only this generation has
    bandwidth: float  # of its memory by the data sheet, bytes/s
    dense_flop_per_s: dict[str, float]  # by the type that the network computes in
    device: dict[str, Any]  # fields of XLA's description of a device

    @property
    def memory_bytes(self) -> int:
        return self.device["device_memory_size"]

    @property
    def reached_bandwidth(self) -> float:
        """Bytes/s that a copy reaches."""
        return REACHED * self.bandwidth

    @property
    def target(self) -> str:
        """XLA's description of it (GpuTargetConfigProto) as text."""
        match = re.fullmatch(r"(\d+)\.(\d+)(a?)", self.compute_capability)
        assert match is not None, f"compute capability {self.compute_capability}"
        extension = "ACCELERATED_FEATURES" if match[3] else "NONE"
        major, minor, patch = _CUDNN
        fields = _EVERY_CARD | {"memory_bandwidth": int(self.bandwidth)} | self.device
        lines = [f"{field}: {value}" for field, value in fields.items()]
        return "\n".join(
            [
                "gpu_device_info {",
                *lines,
                f"cuda_compute_capability {{ major: {match[1]} minor: {match[2]} "
                f"feature_extension: {extension} }}",
                f'driver_version: "{_CUDA}" runtime_version: "{_CUDA}"',
                f'compile_time_toolkit_version: "{_CUDA}"',
                f'dnn_version: "{major}.{minor}.{patch}"',
                f'name: "{self.name}" device_vendor: "NVIDIA Corporation"',
                "}",
                'platform_name: "CUDA"',
                f"dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}",
                f'device_description_str: "{self.name}"',
            ]
        )


def described() -> list[str]:
    """Returns the names of the cards that have a description."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read_card(name: str) -> Card:
    """Returns one of `described()`."""
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return Card(**tomllib.loads(text))
