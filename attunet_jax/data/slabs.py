"""Arrays of voxels as slabs of a few slices, so that a part of one unpacks no others.

A slab is an LZ4 block of the low bytes of all its voxels, then of the high bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lz4.block
import numpy as np
from numpy.typing import DTypeLike

from attunet_jax.data.labels import LARGEST_ORGAN
from attunet_jax.errors import BadData

SLAB_DEPTH = 8  # slices; part of the format
# One byte of LZ4 stands for at most 255 bytes.
_MAX_LZ4_RATIO = 255


def pack(array: np.ndarray) -> list[bytes]:
    """Packs `array [D, H, W]`, int16 or uint8, into slabs from slice 0 on."""
    return [
        lz4.block.compress(_planes(array[first : first + SLAB_DEPTH]), store_size=False)
        for first in range(0, len(array), SLAB_DEPTH)
    ]


def count_organ_voxels(label: np.ndarray) -> np.ndarray:
    """Counts the voxels of each label of `label [D, H, W]` in each slab.

    Returns uint32 `[slabs, n]`, where n is the largest label that is an organ's and
    column k - 1 counts label k.
    """
    counts = np.stack(
        [
            np.bincount(label[first : first + SLAB_DEPTH].ravel(), minlength=256)
            for first in range(0, len(label), SLAB_DEPTH)
        ]
    )[:, 1 : LARGEST_ORGAN + 1]
    (found,) = np.nonzero(counts.any(0))
    return counts[:, : found.max(initial=-1) + 1].astype("<u4")


@dataclass(frozen=True, eq=False)
class PackedArray:
    """An array `[D, H, W]` in packed slabs, read by indexing or by `np.asarray`.

    It is indexed by three slices of step 1 and unpacks only the slabs in question.
    Raises `BadData` where the slabs cannot hold that shape, or are damaged.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    slabs: Sequence[bytes]

    def __post_init__(self) -> None:
        depth, height, width = self.shape
        held = sum(map(len, self.slabs)) * _MAX_LZ4_RATIO
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
            result[first + begin - start : first + end - start] = slab[
                begin:end, top:bottom, left:right
            ]
        return result

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
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
