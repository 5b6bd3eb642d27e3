"""Describes the host and measures its peak FLOP/s and memory bandwidth."""

import os
import platform
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from attunet_jax.errors import BadArguments, one_line
from attunet_jax.train.workdir import environment
from launch.benchmark.timing import alternating, timed
from launch.benchmark.workload import Size


def choose_device(name: str | None) -> Any:
    """Returns the first device of this kind (cpu, gpu, tpu), or JAX's default.

    Raises `BadArguments` where there is none.
    """
    if name:
        jax.config.update("jax_platforms", name)
    try:
        return jax.devices()[0]
    except RuntimeError as error:
        raise BadArguments(
            f"--device={name}: JAX has none here ({one_line(error)[:120]}); leave the "
            "flag out to use what there is"
        ) from None


def describe(device: Any) -> dict:
    """Returns processor, cores, device, versions, commit and command for JSON."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "backend": device.platform,
        "device": device.device_kind,
        **environment(),
    }


def free_bytes(device: Any) -> int | None:
    """Returns the free memory of the device, or None where it is unknown."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines if device.platform == "cpu" else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def measure_peaks(size: Size, dtypes: tuple[str, ...], rounds: int) -> dict:
    """Measures FLOP/s of a square matrix product in each type, and bytes/s of a copy.

    The copy adds a number in place to an array larger than the caches; bytes are those
    read and written. A peak is the best round: what the machine does undisturbed.
    """
    runners = {}
    for dtype in dtypes:
        runners[dtype] = _matrix_product(size.matrix_size, dtype)
    count = size.copy_mib * 2**20 // 4
    array = jnp.zeros(count, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> None:
        nonlocal array
        array = jax.block_until_ready(add(array))

    runners["copy"] = timed(copy)
    seconds = alternating(runners, rounds)
    flop = 2 * size.matrix_size**3
    return {
        "matrix_product_flop_per_s": {
            d: flop / min(seconds[d].seconds) for d in dtypes
        },
        "copy_bytes_per_s": 2 * 4 * count / min(seconds["copy"].seconds),
        "rounds": rounds,
        "median_over_best": {
            name: statistics.median(series.seconds) / min(series.seconds)
            for name, series in seconds.items()
        },
    }


def _matrix_product(n: int, dtype: str):
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return timed(lambda: jax.block_until_ready(product(a, a)))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
