"""Bounds the memory of a process by the headers of the scans.

The bounds follow step by step what `prepare_case` and `write_shard`, or `examine` of
`verify`, hold at a time. No voxel is read for them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import (
    ITK_ENDINGS,
    max_voxels,
    read_grid,
    resampled_shape,
    split_ending,
)
from data_prep.case import Settings
from data_prep.shard import ShardSpec
from data_prep.sources.layout import ScanPair

# Python with its libraries, before any scan, and buffers of a fixed size.
BASE_BYTES = 140 * 2**20
# The arrays of a record are copied, packed, compressed and written.
_RECORD_COPIES = 6
# glibc's allocator returns freed blocks to the system only above this size.
_RETAINED_BYTES = 32 * 2**20
# Per voxel of a DICOM series. Its values are int16 as a rule: reading all headers to
# find out would take long.
_DICOM_BYTES = 12


def prepare_bytes(specs: Iterable[ShardSpec]) -> int:
    """Bytes that one process of `prepare` needs at most for any of the cases."""
    needed = (case_bytes(pair, s.settings) for s in specs for pair in s.pairs)
    return BASE_BYTES + max(needed, default=0)


def case_bytes(pair: ScanPair, settings: Settings) -> int:
    """Bytes to prepare one case; 0 where its header cannot be read: it is left out."""
    if pair.image is None:
        return 0
    try:
        if pair.image.is_dir():
            return _DICOM_BYTES * max_voxels(pair.image)
        volume, fits_int16 = read_grid(pair.image)
        new_shape = resampled_shape(volume, settings.spacing_mm)
    except (BadData, OSError):
        return 0
    shape = volume.voxels.shape
    blurred = settings.blur_mm > 0
    needed = _nifti_bytes(shape, new_shape, fits_int16=fits_int16, blurred=blurred)
    return max(needed, _itk_bytes(pair.image, volume.voxels.size, fits_int16))


def _itk_bytes(path: Path, size: int, fits_int16: bool) -> int:
    """Bytes while ITK's image, its array and the volume are there; 0 for others."""
    if split_ending(path.name, ITK_ENDINGS)[1] is None:
        return 0
    return size * (2 * 2 + 2 if fits_int16 else 2 * 8 + 4)


def _nifti_bytes(
    shape: tuple[int, ...], new_shape: list[int], *, fits_int16: bool, blurred: bool
) -> int:
    size, result = int(np.prod(shape)), int(np.prod(new_shape))
    image = 2 * size if fits_int16 else 4 * size
    reading = image if fits_int16 else 6 * size  # int16 until a value does not fit
    labels = image + 2 * size  # uint8, and a mask of a single organ
    if blurred:
        image, blurring = 4 * size, image + 4 * size
    else:
        blurring = 0
    # One pass along each axis, the coarsest first; float32 from the first one on.
    current, before, passes = list(shape), 0, 0
    for axis in sorted(range(3), key=lambda a: new_shape[a] / shape[a]):
        current[axis] = new_shape[axis]
        after = 4 * int(np.prod(current))
        passes = max(passes, image + before + after)
        before = after
    resampling = max(passes, image + before + 2 * result) + result
    writing = _RECORD_COPIES * 3 * result
    retained = _RECORD_COPIES * min(3 * result, _RETAINED_BYTES)
    return retained + max(reading, labels, blurring + result, resampling, writing)


def verify_bytes(pairs: Iterable[ScanPair]) -> int:
    """Bytes that one process of `verify` needs at most for any of the cases."""
    return BASE_BYTES + max(map(_verify_case_bytes, pairs), default=0)


def _verify_case_bytes(pair: ScanPair) -> int:
    """Of the image, its label map before and after alignment, and a mask of organs."""
    if pair.image is None:
        return 0
    try:
        if pair.image.is_dir():
            return _DICOM_BYTES * max_voxels(pair.image)
        volume, fits_int16 = read_grid(pair.image)
    except (BadData, OSError):
        return 0
    if needed := _itk_bytes(pair.image, volume.voxels.size, fits_int16):
        return max(needed, volume.voxels.size * 9)
    image = 2 if fits_int16 else 4
    return volume.voxels.size * max(6, image + 2 + 2 + 1)
