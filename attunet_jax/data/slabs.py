"""An array `[D, H, W]` in, packed slabs of a few slices out; any part of it back.

A crop needs some slices of a scan: only the slabs that hold them are unpacked. A slab
is an LZ4 block of the low bytes of all its voxels, then of the high bytes: CT gets as
small as by zstd voxel by voxel, and is there many times faster (docs/benchmarks.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lz4.block
import numpy as np

from attunet_jax.errors import BadData

SLAB_DEPTH = 8  # slices; part of the format
# One byte of LZ4 never stands for more than 255.
_MOST_PER_BYTE = 255


def pack(array: np.ndarray) -> list[bytes]:
    """`array [D, H, W]`, little-endian int16 or uint8, as slabs from slice 0 on."""
    return [
        lz4.block.compress(_planes(array[first : first + SLAB_DEPTH]), store_size=False)
        for first in range(0, len(array), SLAB_DEPTH)
    ]


@dataclass(frozen=True, eq=False)
class PackedArray:
    """What `pack` made, to be indexed with three slices of step 1; `np.asarray` reads
    it whole. Raises `BadData` where the slabs cannot hold that shape, or are damaged.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    slabs: Sequence[bytes]

    def __post_init__(self) -> None:
        depth, height, width = self.shape
        held = sum(map(len, self.slabs)) * _MOST_PER_BYTE
        if len(self.slabs) != -(-depth // SLAB_DEPTH) or (
            depth * height * width * self.dtype.itemsize > held
        ):
            raise BadData(f"{len(self.slabs)} slabs cannot hold {self.shape} voxels")

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        spans = [part.indices(n) for part, n in zip(index, self.shape, strict=True)]
        (start, stop, _), (top, bottom, _), (left, right, _) = spans
        size = [max(b - a, 0) for a, b, _ in spans]
        result = np.empty(size, self.dtype)
        if not result.size:
            return result
        for number in range(start // SLAB_DEPTH, -(-stop // SLAB_DEPTH)):
            first = number * SLAB_DEPTH
            slab = self._slab(number)
            begin, end = max(start - first, 0), min(stop - first, len(slab))
            piece = slab[begin:end, top:bottom, left:right]
            result[first + begin - start : first + end - start] = piece
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:, :, :]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _slab(self, number: int) -> np.ndarray:
        depth = min(SLAB_DEPTH, self.shape[0] - number * SLAB_DEPTH)
        shape = (depth, *self.shape[1:])
        count = depth * self.shape[1] * self.shape[2]
        size = count * self.dtype.itemsize
        try:
            raw = lz4.block.decompress(self.slabs[number], uncompressed_size=size)
        except (lz4.block.LZ4BlockError, ValueError, OverflowError) as error:
            raise BadData(f"slab {number} is damaged ({error})") from error
        if len(raw) != size:
            raise BadData(f"slab {number} holds {len(raw)} bytes, not {size}")
        planes = np.frombuffer(raw, np.uint8).reshape(self.dtype.itemsize, *shape)
        if self.dtype.itemsize == 1:
            return planes[0]
        voxels = planes[1].astype("<u2")
        voxels <<= 8
        voxels |= planes[0]
        return voxels.view(self.dtype)


def _planes(slab: np.ndarray) -> bytes:
    if slab.dtype.itemsize == 1:
        return np.ascontiguousarray(slab).tobytes()
    voxels = np.ascontiguousarray(slab, "<i2").view("<u2")
    low, high = (voxels & 255).astype(np.uint8), (voxels >> 8).astype(np.uint8)
    return low.tobytes() + high.tobytes()
