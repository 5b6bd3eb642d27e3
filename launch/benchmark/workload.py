"""The sizes of a benchmark, and the synthetic scans and data sets that it measures on.

Scans are as data_prep writes them: canonical axes, int16 HU, one record each. Organs
are balls in noise of 20 HU as scanners have it: noise determines how far scans
compress.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.data.dataset import FORMAT, FORMAT_VERSION, Dataset, open_dataset
from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import HuHistogram

NETWORKS = ("unet", "attention_unet")
DTYPES = ("float32", "bfloat16")
# What `speed` measures: name on the command line -> name in the report.
MEASUREMENTS = {
    "forward": "forward pass, batch 1",
    "train_step": "train step, batch {batch}",
    "input_pipeline": "input pipeline",
    "preparation": "preparation, {prepared} scans",
    "prediction": "whole-case prediction",
    "metrics": "metrics of a case",
    "gate_parts": "attention gates, batch 1",
}
PREPARED_SCANS = 4
ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3}
SPACING_MM = 2.0
SPLIT = "80_20"  # the configs' default
CASES_PER_SHARD = 4


@dataclass(frozen=True)
class Size:
    """Everything that --size determines; shapes are [D, H, W] in voxels."""

    name: str
    widths: tuple[int, ...]
    shape: tuple[int, int, int]  # of the network's input
    read_shape: tuple[int, int, int]  # of the window that the host reads
    scan_shape: tuple[int, int, int]  # of whole cases: pipeline, prediction, metrics
    scans: int  # synthetic cases in the shards
    batch: int  # of a train step; that of a forward pass is 1
    phantom: str  # data_prep.phantom --size
    prepared_mm: float  # data_prep.prepare --spacing_mm
    copy_mib: int  # size of the array whose copy is timed
    matrix_size: int  # edge of the square matrices whose product is timed


PUBLISHED_WIDTHS = (16, 32, 64, 128, 256)
SIZES = {
    size.name: size
    for size in (
        Size(
            name="paper",
            widths=PUBLISHED_WIDTHS,
            shape=(96, 160, 160),
            read_shape=(96, 208, 208),
            scan_shape=(200, 192, 192),  # 40 cm of a trunk at 2 mm
            scans=8,
            batch=2,
            phantom="full",
            prepared_mm=2.0,
            copy_mib=512,
            matrix_size=8192,
        ),
        Size(
            name="small",
            widths=PUBLISHED_WIDTHS,
            shape=(48, 64, 64),
            read_shape=(48, 84, 84),
            scan_shape=(64, 96, 96),
            scans=16,
            batch=2,
            phantom="small",
            prepared_mm=4.0,
            copy_mib=256,
            matrix_size=2048,
        ),
        Size(
            name="tiny",
            widths=(4, 6, 8),
            shape=(16, 16, 16),
            read_shape=(16, 20, 20),
            scan_shape=(20, 24, 24),
            scans=4,
            batch=2,
            phantom="small",
            prepared_mm=8.0,
            copy_mib=8,
            matrix_size=256,
        ),
    )
}


def find_size(name: str | None, *, backend: str) -> Size:
    """Returns the size of this name; without a name, small on a CPU, else paper.

    Raises `BadArguments` for an unknown name.
    """
    name = name or ("small" if backend == "cpu" else "paper")
    if name not in SIZES:
        raise BadArguments(f"--size={name}: there are {', '.join(SIZES)}")
    return SIZES[name]


def make_config(
    network: str, size: Size, compute_dtype: str, convolution: str = "auto"
) -> Any:
    """Returns the config that the network is trained with, in this size."""
    from configs import attention_unet, unet

    module = {"unet": unet, "attention_unet": attention_unet}[network]
    config = module.get_config()
    config.classes = ("background", *ORGANS)
    config.model.widths = size.widths
    config.model.compute_dtype = compute_dtype
    config.model.convolution = convolution
    config.data.crop_shape = size.shape
    config.data.read_shape = size.read_shape
    config.data.batch_size = size.batch
    return config


def make_case(number: int, shape: tuple[int, int, int]) -> Case:
    """Returns a synthetic case; the same number gives the same case."""
    rng = np.random.default_rng(number)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    radius = min(shape) / 5
    label = np.zeros(shape, np.uint8)
    for value in ORGANS.values():
        centre = [rng.uniform(radius, n - 1 - radius) for n in shape]
        squared_distance = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
        label[np.asarray(squared_distance) < radius**2] = value
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
        case_id=f"synthetic_{number:03}",
    )


def make_dataset(folder: Path, size: Size) -> Dataset:
    """Writes a prepared data set into `folder`; all cases are for training."""
    case_ids, shards, cases = [], [], []
    for first in range(0, size.scans, CASES_PER_SHARD):
        numbers = range(first, min(first + CASES_PER_SHARD, size.scans))
        path = folder / f"cases-{len(shards):05}.array_record"
        records = []
        for record, number in enumerate(numbers):
            case = make_case(number, size.scan_shape)
            labelled = HuHistogram.of(case.image_hu[case.label > 0])
            records.append(to_bytes(case))
            case_ids.append(case.case_id)
            cases.append(
                {
                    "case_id": case.case_id,
                    "shard": len(shards),
                    "record": record,
                    "labelled_hu": labelled.as_json(),
                }
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
