"""Converts a `Case` to the bytes of one record of a prepared data set, and back.

A record is a msgpack map of plain values; reading one never runs code from it:

    {"format": "attunet_jax.case", "version": 2, "case_id": "amos_0007",
     "image_hu": ["<i2", [D, H, W], slabs], "label": ["|u1", [D, H, W], slabs],
     "spacing_mm": ["<f8", [3], bytes], "affine": ["<f8", [4, 4], bytes],
     "original_shape": ["<i8", [3], bytes], "original_affine": ["<f8", [4, 4], bytes],
     "hu": ["<f8", [3], bytes]}

Arrays are little-endian and in C order; `hu` is lowest value, mean and deviation of the
image. Voxels are stored as slabs of `SLAB_DEPTH` slices, so that a crop unpacks only
the slabs that hold its slices. A slab is an LZ4 block of the low bytes of all its
voxels, then of the high bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lz4.block
import msgpack
import numpy as np
from numpy.typing import DTypeLike

from attunet_jax.data.case_id import is_case_id
from attunet_jax.errors import BadData, one_line
from attunet_jax.intensity import HuStatistics

FORMAT = "attunet_jax.case"
FORMAT_VERSION = 2

# Type and shape of each array; a letter is a length above 0, the same everywhere.
_ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "image_hu": ("<i2", ("D", "H", "W")),
    "label": ("|u1", ("D", "H", "W")),
    "spacing_mm": ("<f8", (3,)),
    "affine": ("<f8", (4, 4)),
    "original_shape": ("<i8", (3,)),
    "original_affine": ("<f8", (4, 4)),
}
_VOXELS = ("image_hu", "label")
_KEYS = {"format", "version", "case_id", "hu", *_ARRAYS}
SLAB_DEPTH = 8  # slices; part of the format
# One byte of LZ4 stands for at most 255 bytes.
_MAX_LZ4_RATIO = 255


def pack(array: np.ndarray) -> list[bytes]:
    """Packs `array [D, H, W]`, int16 or uint8, into slabs from slice 0 on."""
    return [
        lz4.block.compress(_planes(array[first : first + SLAB_DEPTH]), store_size=False)
        for first in range(0, len(array), SLAB_DEPTH)
    ]


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


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its label map, resampled to the spacing of the data set.

    Axes are canonical: D feet to head, H front to back, W patient's right to left.
    Raises `BadData` where a field has another type or shape than stated here, or where
    a spacing or affine is not finite or not above 0.
    """

    image_hu: np.ndarray  # int16 [D, H, W]
    label: np.ndarray  # uint8 [D, H, W], 0 is background
    spacing_mm: np.ndarray  # float64 (3,), along D, H, W
    affine: np.ndarray  # float64 (4, 4), (d, h, w, 1) to RAS+ world mm
    original_shape: tuple[int, int, int]  # of the scan's file, in its own axis order
    original_affine: np.ndarray  # float64 (4, 4), the file's index to RAS+ world mm
    case_id: str
    version: int = FORMAT_VERSION

    @cached_property
    def hu(self) -> HuStatistics:
        """Statistics of `image_hu`."""
        return HuStatistics.of(self.image_hu)

    def __post_init__(self) -> None:
        _check_case_id(self.case_id)
        lengths: dict[int | str, int] = {}
        for name, (dtype, shape) in _ARRAYS.items():
            values = np.asarray(getattr(self, name))
            if values.dtype != np.dtype(dtype):
                raise BadData(
                    f"case {self.case_id}: {name} is {values.dtype}, not "
                    f"{np.dtype(dtype)}"
                )
            fits = len(values.shape) == len(shape) and all(
                n > 0 and n == lengths.setdefault(expected, n)
                if isinstance(expected, str)
                else n == expected
                for n, expected in zip(values.shape, shape, strict=True)
            )
            if not fits:
                raise BadData(
                    f"case {self.case_id}: {name} has the shape {values.shape}, "
                    f"not {tuple(lengths.get(n, n) for n in shape)}"
                )
        if min(self.original_shape) < 1:
            raise BadData(
                f"case {self.case_id}: original_shape {self.original_shape} is empty"
            )
        if not (np.isfinite(self.spacing_mm).all() and (self.spacing_mm > 0).all()):
            raise BadData(
                f"case {self.case_id}: spacing_mm {self.spacing_mm} is not above 0"
            )
        for name in ("affine", "original_affine"):
            if not np.isfinite(getattr(self, name)).all():
                raise BadData(f"case {self.case_id}: {name} is not finite")


def _check_case_id(case_id: object) -> str:
    if not isinstance(case_id, str) or not is_case_id(case_id):
        raise BadData(
            f"{case_id!r} is no case id: letters, digits, '.', '_' and '-' are "
            "allowed, beginning with a letter or digit"
        )
    return case_id


@dataclass(frozen=True, eq=False)
class PackedCase:
    """An open record; voxels are unpacked only where they are indexed."""

    case_id: str
    version: int
    image_hu: PackedArray
    label: PackedArray
    hu: HuStatistics
    grid: dict[str, Any]  # the other fields of `Case`

    def case(self) -> Case:
        """Unpacks the whole case. Raises `BadData` where a slab is damaged."""
        return Case(
            image_hu=np.asarray(self.image_hu),
            label=np.asarray(self.label),
            case_id=self.case_id,
            version=self.version,
            **self.grid,
        )


def to_bytes(case: Case) -> bytes:
    """Returns the record of a case."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "case_id": case.case_id,
    }
    for name, (dtype, _) in _ARRAYS.items():
        values = np.ascontiguousarray(getattr(case, name), dtype)
        content = pack(values) if name in _VOXELS else values.tobytes()
        fields[name] = [dtype, list(values.shape), content]
    hu = np.array([case.hu.min, case.hu.mean, case.hu.std], "<f8")
    fields["hu"] = ["<f8", [3], hu.tobytes()]
    packed = msgpack.packb(fields)
    assert packed is not None  # msgpack's stubs allow None
    return packed


def from_bytes(data: bytes) -> Case:
    """Returns the whole case of a record. Raises `BadData` as `open_bytes` does."""
    return open_bytes(data).case()


def open_bytes(data: bytes) -> PackedCase:
    """Opens a record and leaves its voxels packed.

    Raises `BadData` for anything but a whole record of this version; the message lacks
    the file's name, which the caller puts before it.
    """
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadData(
            f"damaged record of {len(data)} bytes ({one_line(error)})"
        ) from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise BadData("this record is no case of attunet_jax")
    version, case_id = fields.get("version"), fields.get("case_id")
    if type(version) is not int or version < 1:
        raise BadData(f"damaged record: its version is {version!r}")
    if version != FORMAT_VERSION:
        remedy = "update attunet_jax"
        if version < FORMAT_VERSION:
            remedy = "prepare the data again"
        raise BadData(
            f"record of format version {version}, this program reads "
            f"{FORMAT_VERSION}: {remedy}"
        )
    if fields.keys() != _KEYS:
        wrong = sorted(map(repr, fields.keys() ^ _KEYS))
        raise BadData(f"damaged record: missing or unknown field {', '.join(wrong)}")
    case_id = _check_case_id(case_id)
    image_hu, label = (_packed(name, fields[name]) for name in _VOXELS)
    if image_hu.shape != label.shape:
        raise BadData("damaged record: label is of another shape than image_hu")
    grid: dict[str, Any] = {
        name: _array(name, fields[name], dtype)
        for name, (dtype, _) in _ARRAYS.items()
        if name not in _VOXELS
    }
    grid["original_shape"] = tuple(grid["original_shape"].tolist())
    return PackedCase(case_id, version, image_hu, label, _hu(fields["hu"]), grid)


def _hu(entry: object) -> HuStatistics:
    values = _array("hu", entry, "<f8")
    if values.shape != (3,) or not np.isfinite(values).all():
        raise BadData(f"damaged record: hu is {values.tolist()}")
    return HuStatistics(*values.tolist())


def _packed(name: str, entry: object) -> PackedArray:
    dtype, shape, slabs = _entry(name, entry, _ARRAYS[name][0], list)
    if len(shape) != 3 or 0 in shape or not all(type(s) is bytes for s in slabs):
        raise BadData(f"damaged record: {name} is no slabs of three sizes {shape}")
    try:
        return PackedArray(dtype, tuple(shape), slabs)
    except BadData as error:
        raise BadData(f"damaged record: {name}: {error}") from error


def _array(name: str, entry: object, dtype: str) -> np.ndarray:
    """Returns a read-only view of the bytes of `[dtype, shape, bytes]`."""
    found, shape, raw = _entry(name, entry, dtype, bytes)
    count = math.prod(shape)
    if count * found.itemsize != len(raw):
        raise BadData(
            f"damaged record: {name} of shape {shape} has {len(raw)} bytes, not "
            f"{count * found.itemsize}"
        )
    return np.frombuffer(raw, found).reshape(shape)


def _entry(
    name: str, entry: object, dtype: str, content: type
) -> tuple[np.dtype, list[int], Any]:
    """Checks `[dtype, shape, content]`, where only `dtype` is accepted."""
    if not (
        isinstance(entry, list)
        and len(entry) == 3
        and isinstance(entry[1], list)
        and isinstance(entry[2], content)
    ):
        raise BadData(f"damaged record: {name} is no [dtype, shape, content]")
    found, shape, raw = entry
    if found != dtype:
        raise BadData(f"damaged record: {name} is of type {found!r}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise BadData(f"damaged record: {name} has the shape {shape}")
    return np.dtype(dtype), shape, raw
