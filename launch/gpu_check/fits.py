"""Tests whether a crop of this size trains on this device, and in how much memory.

    python -m launch.gpu_check.fits OUT.json NETWORK DTYPE DEPTH,HEIGHT,WIDTH BATCH

Compiles the train step, runs it four times and writes time, memory and a verdict:
"trains", "NaN", or the error of the compiler or the device.
"""

import sys
import time

import jax

from launch.gpu_check.parts import DRY, Report, Setting, block, the_device


def main(out: str, network: str, dtype: str, size: str, batch: str) -> None:
    depth, height, width = (16, 16, 32) if DRY else map(int, size.split(","))
    crop = (depth, height, width)
    report = Report(out)
    device = the_device()
    report.add(device=device.device_kind, network=network, dtype=dtype, crop=list(crop))
    start = time.perf_counter()
    try:
        setting = Setting(
            network,
            dtype,
            device,
            crop=crop,
            batch=int(batch),
            widths=(4, 6, 8) if DRY else None,
        )
        step = setting.step()
        memory = step.memory_analysis()
        report.add(
            compile_s=time.perf_counter() - start,
            arguments_GiB=memory.argument_size_in_bytes / 2**30,
            temporaries_GiB=memory.temp_size_in_bytes / 2**30,
        )
        state = setting.fresh_state()
        losses, seconds = [], []
        for _ in range(4):
            start = time.perf_counter()
            state, metrics = block(step(state, setting.batch, setting.key))
            seconds.append(time.perf_counter() - start)
            losses.append(float(metrics["loss"]))
        stats = device.memory_stats() or {}
        report.add(
            losses=losses,
            step_s=min(seconds),
            peak_GiB=stats.get("peak_bytes_in_use", 0) / 2**30,
            limit_GiB=stats.get("bytes_limit", 0) / 2**30,
            verdict="trains" if all(x == x for x in losses) else "NaN",
        )
    except (jax.errors.JaxRuntimeError, MemoryError, ValueError) as error:
        report.add(verdict="does not: " + " ".join(str(error).split())[:600])


if __name__ == "__main__":
    main(*sys.argv[1:])
