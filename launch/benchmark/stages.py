"""Our data set and network in; runners of everything around the train step out."""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from attunet_jax.distributed.mesh import to_global
from attunet_jax.errors import BadData
from attunet_jax.evaluate.metrics import measure_case
from launch.benchmark.ours import Ours
from launch.benchmark.scans import ORGANS, SPACING_MM, make_case
from launch.benchmark.timing import Runner, timed
from launch.benchmark.workload import Size

ROOT = Path(__file__).resolve().parents[2]
# More than the pipeline reads ahead: a round must not live on what was ready before.
BATCHES_A_ROUND = 8


@contextmanager
def input_pipeline(ours: Ours) -> Iterator[Runner]:
    """Seconds a batch, from shards in the page cache to arrays on the device."""
    batches = ours.batches()

    def run(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls * BATCHES_A_ROUND):
            jax.block_until_ready(to_global(next(batches), ours.mesh))
        return (time.perf_counter() - began) / BATCHES_A_ROUND

    try:
        yield run
    finally:
        batches.close()


def whole_case_prediction(ours: Ours, size: Size) -> Runner:
    """Seconds from a scan's HU at the network's spacing to class probabilities."""
    predictor = ours.predictor()
    image_hu = make_case(0, size.scan_shape).image_hu
    return timed(lambda: predictor.probabilities(image_hu))


def metrics(size: Size) -> Runner:
    """Seconds for all scores of a case whose prediction is a voxel off everywhere."""
    truth = make_case(0, size.scan_shape).label
    prediction = np.roll(truth, 1, axis=0)
    return timed(lambda: measure_case(truth, prediction, (SPACING_MM,) * 3, ORGANS))


def preparation(size: Size, folder: Path, scans: int) -> Runner:
    """Seconds for `data_prep.prepare` on phantoms, its start included."""
    source = folder / "phantoms"
    _run("data_prep.phantom", f"--output={source}", f"--cases={scans}",
         f"--size={size.phantom}", "--seed=0")  # fmt: skip
    numbers = itertools.count()

    def prepare() -> None:
        _run(
            "data_prep.prepare",
            "--source=nifti",
            f"--input={source}",
            f"--output={folder / f'prepared_{next(numbers)}'}",
            "--labels=" + ",".join(f"{k}={v}" for k, v in ORGANS.items()),
            f"--spacing_mm={size.prepared_mm}",
        )

    return timed(prepare)


def _run(module: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BadData(f"{module} ended with status {done.returncode}: {said}")
