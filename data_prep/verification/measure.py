"""A scan or its label map in; what can be measured of it, ready for JSON, out.

Everything is counted slice by slice: beside the volume itself little memory is needed.
"""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from attunet_jax.volume import Volume, axis_codes

# The two faces across D, H and W, in the order of indices.
FACES = (("feet", "head"), ("front", "back"), ("right", "left"))
_BINS = 2**16


def measure_image(image: Volume) -> dict:
    """Shape, spacing, orientation, HU and the content's checksums.

    `content` is equal for scans whose canonical voxels are, whatever the file's type,
    axis order or compression; `content_unordered` also for scans that are mirrored or
    turned copies. `skew_degrees` is how far axes are from right angles,
    `oblique_degrees` how far the worst axis is from the body's.
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
    """By label value that occurs: voxels, ml, the faces it touches and its mean HU.

    `counts`: voxels by value. `mean_hu` is None without an image of the same shape,
    whose voxels are those of equal index.
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
    """One organ of several label values, each measured by `measure_labels`."""
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


def among(voxels: np.ndarray, values: Collection[int]) -> np.ndarray:
    """`np.isin` by slices: of a whole scan it takes eight bytes a voxel."""
    found = np.empty(voxels.shape, bool)
    for part, out in zip(voxels, found, strict=True):
        out[...] = np.isin(part, list(values))
    return found


def content(voxels: np.ndarray) -> str:
    """Checksum of the values and their places, whatever their type or byte order."""
    return _digest(f"{voxels.shape} {voxels.dtype.kind}", voxels)


def _digest(words: str, array: np.ndarray) -> str:
    digest = hashlib.sha256(words.encode())
    for part in array if array.ndim > 1 else [array]:
        if part.dtype == np.uint8:  # labels of either type are alike
            part = part.astype(np.uint16)
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _histogram(voxels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Voxels by value, and the value of the first bin and the step to the next.

    A bin a HU for int16; other values are spread over as many bins.
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
    """Whole numbers as such; others to six digits."""
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.6g}")
