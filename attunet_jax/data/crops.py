"""A case in, the piece of it that a batch holds out, with a static shape.

A piece is a dict of `image_hu` int16 and `label` uint8, both `crop_shape`, and
`mean_hu`, `std_hu` float32 of the whole case. Where the scan is smaller than the crop
it lies in the middle, between voxels of its lowest HU and label 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attunet_jax.data.records import Case

Piece = dict[str, Any]


def random_crop(
    case: Case,
    rng: np.random.Generator,
    *,
    crop_shape: Sequence[int],
    foreground_fraction: float,
) -> Piece:
    """A crop at a uniformly random place.

    With probability `foreground_fraction` it is instead centred on a random voxel of
    an organ, as far as that keeps it inside the scan.
    """
    size, crop = np.array(case.image_hu.shape), np.array(crop_shape)
    room = np.maximum(size - crop, 0)
    start = rng.integers(0, room + 1)
    if rng.random() < foreground_fraction:
        organs = np.flatnonzero(case.label != 0)  # bool: nine times as fast as uint8
        if organs.size:
            voxel = np.unravel_index(rng.choice(organs), case.label.shape)
            start = np.clip(np.array(voxel) - crop // 2, 0, room)
    return _cut(case, start, crop)


def centre_crop(case: Case, *, crop_shape: Sequence[int]) -> Piece:
    """The crop in the middle of the case."""
    size, crop = np.array(case.image_hu.shape), np.array(crop_shape)
    return _cut(case, np.maximum(size - crop, 0) // 2, crop)


def _cut(case: Case, start: np.ndarray, crop: np.ndarray) -> Piece:
    """Copies what lies in the crop; nothing as large as the scan is made."""
    size = np.array(case.image_hu.shape)
    read = tuple(slice(s, s + c) for s, c in zip(start, crop, strict=True))
    before = np.maximum(crop - size, 0) // 2
    write = tuple(
        slice(b, b + n) for b, n in zip(before, np.minimum(crop, size), strict=True)
    )
    outside_hu = case.image_hu.min() if (crop > size).any() else 0
    image = np.full(crop, outside_hu, np.int16)
    image[write] = case.image_hu[read]
    label = np.zeros(crop, np.uint8)
    label[write] = case.label[read]
    mean_hu, std_hu = mean_and_std(case.image_hu)
    return {
        "image_hu": image,
        "label": label,
        "mean_hu": np.float32(mean_hu),
        "std_hu": np.float32(std_hu),
    }


def mean_and_std(image_hu: np.ndarray) -> tuple[float, float]:
    """Of all voxels of an int16 image.

    Sums of squares of int16 are exact in float64, so that no second pass over
    deviations, and no float copy of the scan, is needed.
    """
    mean = float(image_hu.mean(dtype=np.float64))
    square = float(np.einsum("dhw,dhw->", image_hu, image_hu, dtype=np.float64))
    return mean, max(square / image_hu.size - mean**2, 0.0) ** 0.5
