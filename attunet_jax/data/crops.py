"""A case in, the piece of it that a batch holds out, with a static shape.

A piece is a dict of `image_hu` int16 and `label` uint8, both `crop_shape`, `mean_hu`
and `std_hu` float32 of the whole case, and `scan_start`, `scan_size` int32 `[3]`: where
in the piece the scan lies. A scan smaller than the crop lies in the middle.

Scans are padded to `least_shape`, so that the network's crop, which the device cuts out
of the piece, finds room: with `padding` "lowest" by their lowest HU and label 0, with
"line_minimum" by the minimum of each line of voxels, labels too (the published code).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attunet_jax.data.records import Case, PackedCase

Piece = dict[str, Any]
PADDINGS = LOWEST, LINE_MINIMUM = ("lowest", "line_minimum")


def random_crop(
    case: Case | PackedCase,
    rng: np.random.Generator,
    *,
    crop_shape: Sequence[int],
    least_shape: Sequence[int],
    foreground_fraction: float,
    padding: str,
) -> Piece:
    """A crop at a uniformly random place.

    With probability `foreground_fraction` it is instead centred on a random voxel of
    an organ, as far as that keeps it inside the scan.
    """
    size, crop = np.array(case.image_hu.shape), np.array(crop_shape)
    room = np.maximum(size - crop, 0)
    start = rng.integers(0, room + 1)
    if rng.random() < foreground_fraction:
        organs = np.flatnonzero(
            np.asarray(case.label) != 0
        )  # bool: nine times as fast as uint8
        if organs.size:
            voxel = np.unravel_index(rng.choice(organs), case.label.shape)
            start = np.clip(np.array(voxel) - crop // 2, 0, room)
    return _cut(case, start, crop, np.array(least_shape), padding)


def centre_crop(
    case: Case | PackedCase, *, crop_shape: Sequence[int], padding: str
) -> Piece:
    """The crop in the middle of the case."""
    size, crop = np.array(case.image_hu.shape), np.array(crop_shape)
    return _cut(case, np.maximum(size - crop, 0) // 2, crop, crop, padding)


def _cut(
    case: Case | PackedCase,
    start: np.ndarray,
    crop: np.ndarray,
    least: np.ndarray,
    padding: str,
) -> Piece:
    """Copies what lies in the crop; nothing as large as the scan is made."""
    size = np.array(case.image_hu.shape)
    scan_size = np.minimum(np.maximum(size, least), crop)
    scan_start = (crop - scan_size) // 2
    before = (scan_size - np.minimum(size, scan_size)) // 2
    d, h, w = (slice(s, s + n) for s, n in zip(start, scan_size, strict=True))
    piece = {
        "mean_hu": np.float32(case.hu.mean),
        "std_hu": np.float32(case.hu.std),
        "scan_start": scan_start.astype(np.int32),
        "scan_size": scan_size.astype(np.int32),
    }
    small = (crop > size).any()
    for name, whole, outside in (
        ("image_hu", case.image_hu, case.hu.least),
        ("label", case.label, 0),
    ):
        part = whole[d, h, w]
        if padding == LINE_MINIMUM:
            after = scan_size - before - part.shape
            part = np.pad(part, np.stack([before, after], 1), mode="minimum")
            where = scan_start
        else:
            where = scan_start + before
        if not small:
            piece[name] = np.ascontiguousarray(part)
            continue
        piece[name] = np.full(crop, outside, whole.dtype)
        write = tuple(slice(w, w + n) for w, n in zip(where, part.shape, strict=True))
        piece[name][write] = part
    return piece
