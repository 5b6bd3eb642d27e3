"""One pair of files in, one checked and resampled case with its manifest entry out."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from attunet_jax.data.labels import LabelMap
from attunet_jax.data.records import Case
from attunet_jax.errors import BadData
from attunet_jax.intensity import HuStatistics
from attunet_jax.volume import blur, resample
from data_prep.read import (
    different_grids,
    image_files,
    label_counts,
    label_files,
    missing_half,
    read_pair,
    unnamed_labels,
)
from data_prep.sources.layout import ScanPair


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of a case."""

    organs: Mapping[str, tuple[int, ...]]  # organ -> label values in the files
    spacing_mm: tuple[float, float, float]  # D, H, W
    blur_mm: float
    ignore_unknown_labels: bool

    def as_json(self) -> dict:
        """As it reads back from a file: lists for tuples."""
        return json.loads(json.dumps(asdict(self)))


def prepare_case(pair: ScanPair, settings: Settings) -> tuple[Case, dict]:
    """Reads, checks, relabels, blurs, resamples.

    Raises `BadData` naming the file when the pair cannot be used.
    """
    if reason := pair.unclear or missing_half(pair):
        raise BadData(reason)
    image, labels = read_pair(pair, settings.organs)
    assert pair.image is not None and labels is not None
    if reason := different_grids(image, labels):
        raise BadData(reason)
    # What is no longer needed goes before the next thing comes: memory is stated
    # before the start and has to be kept to (`memory.py`).
    counts = label_counts(labels.voxels)
    table = _table(counts, settings, pair.other_labels, labels.path)
    mapped = resample(labels, settings.spacing_mm, order="nearest")
    label = table[mapped.voxels]
    del labels, mapped
    original = image.spacing_mm
    if settings.blur_mm:
        image = blur(image, settings.blur_mm)
    image = resample(image, settings.spacing_mm, order="linear")
    voxels = image.voxels
    if voxels.dtype != np.int16:  # fractions of a HU, or values no CT has
        np.rint(voxels, out=voxels)
        voxels = np.clip(voxels, -32768, 32767, out=voxels).astype(np.int16)
    case = Case(
        image_hu=voxels,
        label=label,
        spacing_mm=np.asarray(settings.spacing_mm, float),
        affine=image.affine,
        original_shape=image.grid.shape,
        original_affine=image.grid.affine,
        case_id=pair.case_id,
    )
    return case, {
        "case_id": pair.case_id,
        "shape": list(voxels.shape),
        "spacing_mm": list(settings.spacing_mm),
        "original_shape": list(image.grid.shape),
        "original_spacing_mm": [round(float(s), 6) for s in original],
        "hu": _statistics(voxels, case.hu),
        "voxels": {
            organ: int(np.count_nonzero(label == value))
            for organ, value in LabelMap.numbered(settings.organs).values.items()
        },
        **origins(pair, settings.organs),
    }


def origins(pair: ScanPair, organs: Mapping[str, tuple[int, ...]]) -> dict[str, dict]:
    """What the manifest says of the files of a case that has both: their checksums."""
    assert pair.image is not None
    labels = label_files(pair, organs)
    return {
        "image": _origin(pair.image, image_files(pair)),
        "label": _origin(labels[0], labels),
    }


def _origin(path: Path, files: list[Path]) -> dict:
    """What the manifest says of a file, or of the folder that holds several."""
    if len(files) == 1 and files[0] == path:
        return {"file": path.name, "sha256": sha256(path)}
    folder = path if path.is_dir() else path.parent
    listed = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return {
        "file": folder.name,
        "files": len(files),
        "sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(
    counts: Mapping[int, int], settings: Settings, others: tuple[int, ...], path: str
) -> np.ndarray:
    """File value -> 1..K in the order of the organs; refuses values not named.

    `others` are values that the layout knows, of no organ that was asked for.
    """
    table = np.zeros(max(counts) + 1, np.uint8)
    named = set(others)
    for organ, value in LabelMap.numbered(settings.organs).values.items():
        numbers = settings.organs[organ]
        named |= set(numbers)
        for number in numbers:
            if number < len(table):
                table[number] = value
    reason = unnamed_labels(counts, named, path)
    if reason and not settings.ignore_unknown_labels:
        raise BadData(reason)
    return table


def _statistics(image_hu: np.ndarray, hu: HuStatistics) -> dict[str, float]:
    """Returns range, mean, deviation and percentiles of int16 `[D, H, W]`.

    Percentiles come from counts: exact, and the same on every machine.
    """
    counts = np.zeros(2**16, np.int64)
    for part in image_hu:
        bits = np.ascontiguousarray(part).view(np.uint16)
        counts += np.bincount(bits.ravel(), minlength=2**16)
    up_to = np.roll(counts, 2**15).cumsum()  # from -32768 on
    values = np.arange(-(2**15), 2**15)

    def percentile(percent: float) -> float:
        rank = percent / 100 * (image_hu.size - 1)
        ends = np.searchsorted(up_to, [int(rank), math.ceil(rank)], "right")
        low, high = values[ends]
        return round(float(low + (high - low) * (rank % 1)), 4)

    return {
        "min": int(hu.min),
        "max": int(image_hu.max()),
        "mean": round(hu.mean, 4),
        "std": round(hu.std, 4),
        "p0_5": percentile(0.5),
        "p99_5": percentile(99.5),
    }
