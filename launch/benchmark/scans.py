"""A folder and a size in; a prepared data set of made-up scans in it out.

Written as data_prep writes them: canonical axes, int16 HU, a record a scan. Balls for
organs in noise of 20 HU, as scanners have it: what noise does to compression counts.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from attunet_jax.data.dataset import FORMAT, FORMAT_VERSION, Dataset, open_dataset
from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard
from launch.benchmark.workload import Size

ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3}
SPACING_MM = 2.0
SPLIT = "80_20"  # the configs' default
CASES_PER_SHARD = 4


def make_case(number: int, shape: tuple[int, int, int]) -> Case:
    """The same scan for the same number."""
    rng = np.random.default_rng(number)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    radius = min(shape) / 5
    label = np.zeros(shape, np.uint8)
    for value in ORGANS.values():
        centre = [rng.uniform(radius, n - 1 - radius) for n in shape]
        apart = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
        label[np.asarray(apart) < radius**2] = value
    noise = rng.standard_normal(shape, np.float32) * 20
    image_hu = (np.array([-50, 60, 90, 150], np.float32)[label] + noise).astype(
        np.int16
    )
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    return Case(
        image_hu=image_hu,
        label=label,
        spacing_mm=np.full(3, SPACING_MM),
        affine=affine,
        original_shape=(shape[2], shape[1], shape[0]),
        original_affine=affine,
        case_id=f"made_up_{number:03}",
    )


def make_dataset(folder: Path, size: Size) -> Dataset:
    """All cases are for training."""
    case_ids, shards, cases = [], [], []
    for first in range(0, size.scans, CASES_PER_SHARD):
        numbers = range(first, min(first + CASES_PER_SHARD, size.scans))
        path = folder / f"cases-{len(shards):05}.array_record"
        records = [to_bytes(make_case(number, size.scan_shape)) for number in numbers]
        for record, number in enumerate(numbers):
            case_ids.append(f"made_up_{number:03}")
            cases.append(
                {"case_id": case_ids[-1], "shard": len(shards), "record": record}
            )
        count = write_shard(path, records)
        content = path.read_bytes()
        shards.append(
            {
                "file": path.name,
                "records": count,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "organs": ORGANS,
        "spacing_mm": [SPACING_MM] * 3,
        "settings": {"blur_mm": 0.0},
        "shards": shards,
        "cases": cases,
    }
    split = {"train": case_ids, "validation": [], "test": []}
    splits = {"version": FORMAT_VERSION, "splits": {SPLIT: split}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return open_dataset(folder)
