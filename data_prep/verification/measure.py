"""Measures a scan and its label map; the results are ready for JSON.

Everything is counted slice by slice, so little memory is needed besides the volume.
"""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from attunet_jax.volume import Volume, axis_codes

# The first and the last face across D, H and W.
FACES = (("feet", "head"), ("front", "back"), ("right", "left"))
_BINS = 2**16


def measure_image(image: Volume) -> dict:
    """Returns shape, spacing, orientation, HU and checksums of the content.

    `content` is equal for scans of equal canonical voxels, whatever the type, axis
    order or compression of their files; `content_unordered` also for mirrored and
    turned copies. `skew_degrees` is the deviation of the axes from right angles,
    `oblique_degrees` the largest angle between an axis and the body's.
    """
    counts, low, step = _histogram(image.voxels)
    shares = np.cumsum(counts) / image.voxels.size
    p0_5, p99_5 = (low + step * int(np.searchsorted(shares, q)) for q in (0.005, 0.995))
    directions = image.affine[:3, :3] / image.spacing_mm
    between = np.abs(directions.T @ directions - np.eye(3)).max()
    along = np.abs(directions[[2, 1, 0], [0, 1, 2]]).min()
    return {
        "shape": list(image.voxels.shape),
        "file_shape": list(image.grid.shape),
        "orientation": axis_codes(image.grid),
        "spacing_mm": [round(float(s), 5) for s in image.spacing_mm],
        "skew_degrees": round(float(np.degrees(np.arcsin(min(between, 1)))), 2),
        "oblique_degrees": round(float(np.degrees(np.arccos(min(along, 1)))), 2),
        "hu": {
            "min": _number(image.voxels.min()),
            "max": _number(image.voxels.max()),
            "mean": round(float(image.voxels.mean(dtype=np.float64)), 4),
            "p0_5": _number(p0_5),
            "p99_5": _number(p99_5),
            "whole": image.voxels.dtype == np.int16,
        },
        "content": content(image.voxels),
        "content_unordered": _digest(
            f"{sorted(image.voxels.shape)} {low!r} {step!r}", counts
        ),
    }


def measure_labels(
    labels: Volume, counts: Mapping[int, int], image: Volume | None
) -> dict[int, dict]:
    """Returns for each label value: voxels, ml, the faces it touches and its mean HU.

    `counts` are the voxels by value. `mean_hu` compares voxels of equal index; it is
    None without an image of the same shape.
    """
    voxels = labels.voxels
    same_shape = image is not None and image.voxels.shape == voxels.shape
    sums = np.zeros(max(counts) + 1)
    if image is not None and same_shape:
        for part, hu in zip(voxels, image.voxels, strict=True):
            sums += np.bincount(part.ravel(), hu.ravel(), minlength=len(sums))
    touched: dict[int, list[str]] = {value: [] for value in counts}
    for axis, names in enumerate(FACES):
        for name, index in zip(names, (0, -1), strict=True):
            for value in np.unique(voxels.take(index, axis)).tolist():
                touched[value].append(name)
    voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    return {
        value: {
            "voxels": count,
            "ml": round(float(count * voxel_ml), 3),
            "touches": touched[value],
            "mean_hu": round(float(sums[value] / count), 1) if same_shape else None,
        }
        for value, count in counts.items()
        if value
    }


def merged(parts: list[dict]) -> dict:
    """Merges what `measure_labels` returns for the label values of one organ."""
    count = sum(part["voxels"] for part in parts)
    touched = {face for part in parts for face in part["touches"]}
    known = count and all(part["mean_hu"] is not None for part in parts)
    total_hu = sum(p["voxels"] * p["mean_hu"] for p in parts) if known else 0
    return {
        "voxels": count,
        "ml": round(sum(part["ml"] for part in parts), 3),
        "touches": [name for names in FACES for name in names if name in touched],
        "mean_hu": round(total_hu / count, 1) if known else None,
    }


def isin_by_slices(voxels: np.ndarray, values: Collection[int]) -> np.ndarray:
    """`np.isin`, slice by slice: on a whole scan it needs eight bytes for a voxel."""
    found = np.empty(voxels.shape, bool)
    for part, out in zip(voxels, found, strict=True):
        out[...] = np.isin(part, list(values))
    return found


def content(voxels: np.ndarray) -> str:
    """Checksum of the values and their places; labels of either type are alike."""
    return _digest(f"{voxels.shape} {voxels.dtype.kind}", voxels)


def _digest(words: str, array: np.ndarray) -> str:
    digest = hashlib.sha256(words.encode())
    for part in array if array.ndim > 1 else [array]:
        if part.dtype == np.uint8:
            part = part.astype(np.uint16)
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _histogram(voxels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Returns the voxels in each bin, the value of the first bin and the bin width.

    The width is 1 HU for int16; the range of other values is divided into as many bins.
    """
    low, high = float(voxels.min()), float(voxels.max())
    whole = voxels.dtype == np.int16
    step = 1.0 if whole or high == low else (high - low) / (_BINS - 1)
    counts = np.zeros(_BINS, np.int64)
    for part in voxels:
        if whole:
            bins = part.ravel().astype(np.int64) - int(low)
        else:
            bins = np.rint((part.ravel().astype(np.float64) - low) / step)
        counts += np.bincount(bins.astype(np.int64, copy=False), minlength=_BINS)
    return counts, low, step


def _number(value: float | np.generic) -> int | float:
    """Returns an int where the number is whole, else a float of six digits."""
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.6g}")
