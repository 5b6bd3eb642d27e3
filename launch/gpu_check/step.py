"""Measures time, memory and kernels of one network on this device.

    python -m launch.gpu_check.step PREFIX NETWORK DTYPE WHAT [FIELD=VALUE ...]

WHAT is a comma-separated list of train, forward, profile, peaks; FIELD is a field of
the config's model. Writes PREFIX.json with all results and PREFIX_kernels.txt with the
profile of the train step. XLA_FLAGS selects compiler options. The size is the paper's,
in batches of 2 (forward: 1).
"""

import ast
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from launch.benchmark import flops, machine, workload
from launch.gpu_check import kernels
from launch.gpu_check.parts import DRY, Report, Setting, block, digest, the_device


def timed(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Returns milliseconds of calls waited for one by one, and of queued calls."""
    for _ in range(3):
        call()
    block(call())
    start, each = time.perf_counter(), []
    while len(each) < 3 or (time.perf_counter() - start < seconds and len(each) < 200):
        call_start = time.perf_counter()
        block(call())
        each.append(time.perf_counter() - call_start)
    start, result = time.perf_counter(), None
    for _ in each:
        result = call()
    block(result)
    queued = (time.perf_counter() - start) / len(each)
    return {
        "median_ms": 1e3 * statistics.median(each),
        "best_ms": 1e3 * min(each),
        "queued_ms": 1e3 * queued,
        "calls": len(each),
    }


def memory_of(compiled: Any) -> dict[str, float]:
    """Returns the memory of the program in MiB, as the compiler reports it."""
    m = compiled.memory_analysis()
    return {
        "arguments_MiB": m.argument_size_in_bytes / 2**20,
        "temporaries_MiB": m.temp_size_in_bytes / 2**20,
        "peak_MiB": getattr(m, "peak_memory_in_bytes", 0) / 2**20,
    }


def used(device: Any) -> dict[str, float]:
    """Returns the memory in use in MiB, as the device reports it."""
    stats = device.memory_stats() or {}
    return {
        f"{k}_MiB": v / 2**20
        for k, v in stats.items()
        if k in ("peak_bytes_in_use", "bytes_limit", "largest_alloc_size")
    }


class Measurement:
    """One network in one compute type, its report, and peaks of the device."""

    def __init__(self, prefix: str, network: str, dtype: str, fields: dict) -> None:
        self.prefix, self.dtype = prefix, dtype
        self.size = workload.SIZES["tiny" if DRY else "paper"]
        self.device = the_device()
        self.report = Report(prefix + ".json")
        self.report.add(
            device=self.device.device_kind,
            network=network,
            dtype=dtype,
            fields=fields,
            xla_flags=os.environ.get("XLA_FLAGS", ""),
            shape=list(self.size.shape),
        )
        self.peaks: dict[str, Any] = {}
        depth, height, width = self.size.shape
        self.make_setting = lambda: Setting(
            network,
            dtype,
            self.device,
            crop=(depth, height, width),
            batch=self.size.batch,
            widths=(4, 6) if DRY else self.size.widths,
            fields=fields,
        )

    def measure_peaks(self) -> None:
        self.peaks = machine.measure_peaks(self.size, ("float32", "bfloat16"), 5)
        products = self.peaks["matrix_product_flop_per_s"]
        self.report.add(
            copy_GB_s=self.peaks["copy_bytes_per_s"] / 1e9,
            product_TFLOP_s={k: round(v / 1e12, 1) for k, v in products.items()},
        )

    def rates(self, ms: float, work: flops.Work) -> dict[str, float]:
        """Returns rates of the least work, which launch/benchmark/flops.py counts."""
        rates = {
            "TFLOP_s": work.flop / ms / 1e9,
            "least_GB_s": work.bytes / ms / 1e6,
            "least_GB": work.bytes / 1e9,
            "TFLOP": work.flop / 1e12,
        }
        if self.peaks:
            product = self.peaks["matrix_product_flop_per_s"][self.dtype]
            copy = self.peaks["copy_bytes_per_s"]
            rates["share_of_product_peak"] = rates["TFLOP_s"] * 1e12 / product
            rates["share_of_copy_peak"] = rates["least_GB_s"] * 1e9 / copy
        return {k: round(v, 4) for k, v in rates.items()}

    def train(self, setting: Setting, profile: bool) -> None:
        report, size = self.report, self.size
        start = time.perf_counter()
        step = setting.step()
        report.add(train_compile_s=time.perf_counter() - start)
        report.add(train_memory=memory_of(step))
        state = setting.fresh_state()

        def call() -> Any:
            nonlocal state
            state, metrics = step(state, setting.batch, setting.key)
            return metrics["loss"]

        start = time.perf_counter()
        report.add(first_loss=float(call()), first_call_s=time.perf_counter() - start)
        times = timed(call, 0.3 if DRY else 4.0)
        model = setting.config.model.to_dict()
        operations = flops.network_operations(model, 4, size.batch, size.shape)
        work = flops.train_work(operations, 4, size.batch, size.shape)
        report.add(train=times, train_rates=self.rates(times["queued_ms"], work))
        report.add(last_loss=float(call()), train_used=used(self.device))
        # Repeats the same state, batch and key to compare the bits at this size.
        twice = []
        for _ in range(2):
            after, _ = step(setting.fresh_state(), setting.batch, setting.key)
            twice.append(digest(after.params))
            del after
        report.add(train_same_bits_when_repeated=twice[0] == twice[1])
        if profile:
            self.profile(call, step.as_text())

    def profile(self, call: Callable[[], Any], hlo: str, calls: int = 5) -> None:
        with tempfile.TemporaryDirectory() as folder:
            jax.profiler.start_trace(folder)
            start, result = time.perf_counter(), None
            for _ in range(calls):
                result = call()
            block(result)
            wall = time.perf_counter() - start
            jax.profiler.stop_trace()
            text, summary = kernels.table(folder, calls=calls, wall_s=wall, hlo=hlo)
        Path(self.prefix + "_kernels.txt").write_text(text)
        self.report.add(profile=summary)
        print(text[:6000], flush=True)

    def forward(self, setting: Setting) -> None:
        start = time.perf_counter()
        compiled, variables, image = setting.forward(batch=1)
        self.report.add(forward_compile_s=time.perf_counter() - start)
        self.report.add(forward_memory=memory_of(compiled))
        times = timed(lambda: compiled(variables, image), 0.3 if DRY else 2.0)
        model = setting.config.model.to_dict()
        operations = flops.network_operations(model, 4, 1, self.size.shape)
        work = flops.forward_work(operations)
        self.report.add(
            forward=times, forward_rates=self.rates(times["queued_ms"], work)
        )


def main(prefix: str, network: str, dtype: str, what: str, *changes: str) -> None:
    fields = {}
    for change in changes:
        name, _, value = change.partition("=")
        fields[name] = ast.literal_eval(value)
    parts = what.split(",")
    measurement = Measurement(prefix, network, dtype, fields)
    if "peaks" in parts:
        measurement.measure_peaks()
    setting = measurement.make_setting()
    if "train" in parts:
        measurement.train(setting, profile="profile" in parts)
    if "forward" in parts:
        measurement.forward(setting)


if __name__ == "__main__":
    main(*sys.argv[1:])
