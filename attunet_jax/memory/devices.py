"""How much memory a device has, and who says so."""

from dataclasses import dataclass
from typing import Any

import jax

from attunet_jax.workers import available_bytes

GIB = 2**30


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that a program may use on one device, and where they are from."""

    bytes: int
    source: str


def device_memory(device: Any, given_gib: float | None = None) -> DeviceMemory | None:
    """Returns the memory of `device`; None where nothing tells it.

    That is `given_gib`, or what the device tells JAX (a GPU's is the share that XLA
    takes at the start), or for CPUs the memory that is available on this host, shared
    by its devices.
    """
    if given_gib:
        return DeviceMemory(int(given_gib * GIB), "as given")
    stats = device.memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return DeviceMemory(limit, "as the device says")
    if device.platform == "cpu" and (here := available_bytes()) is not None:
        count = jax.local_device_count()
        shared = f", shared by {count} devices" if count > 1 else ""
        return DeviceMemory(here // count, f"available on this host{shared}")
    return None
