"""A `Case` in, bytes out, and back: what one record of a prepared data set holds.

A record is a msgpack map that says what it is; no code in it is ever run:

    {"format": "attunet_jax.case", "version": 2, "case_id": "amos_0007",
     "image_hu": ["<i2", [D, H, W], slabs], "label": ["|u1", [D, H, W], slabs],
     "spacing_mm": ["<f8", [3], bytes], "affine": ["<f8", [4, 4], bytes],
     "original_shape": ["<i8", [3], bytes], "original_affine": ["<f8", [4, 4], bytes],
     "hu": ["<f8", [3], bytes]}

Arrays are little-endian and in C order; slabs are a list of bytes (`slabs.py`); `hu` is
lowest, mean and deviation of the image. Version 1, which is still read, had bytes for
slabs and no `hu`.

An array `[D, H, W]` in, packed slabs of a few slices out; any part of it back.

A crop needs some slices of a scan: only the slabs that hold them are unpacked. A slab
is an LZ4 block of the low bytes of all its voxels, then of the high bytes: CT gets as
small as by zstd voxel by voxel, and is there many times faster (docs/benchmarks.md).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lz4.block
import msgpack
import numpy as np

from attunet_jax.errors import BadData, one_line

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


FORMAT = "attunet_jax.case"
FORMAT_VERSION = 2
# Also a safe file name: no separators, no leading dot.
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

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
_KEYS = {"format", "version", "case_id", *_ARRAYS}


@dataclass(frozen=True)
class HuStatistics:
    """Of all voxels of a scan, in HU."""

    least: float
    mean: float
    std: float

    @classmethod
    def of(cls, image_hu: np.ndarray) -> "HuStatistics":
        """Of an int16 image.

        Sums of squares of int16 are exact in float64, so that no second pass over
        deviations, and no float copy of the scan, is needed.
        """
        mean = float(image_hu.mean(dtype=np.float64))
        square = float(np.einsum("dhw,dhw->", image_hu, image_hu, dtype=np.float64))
        std = max(square / image_hu.size - mean**2, 0.0) ** 0.5
        return cls(float(image_hu.min()), mean, std)


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its label map, as training and evaluation see it.

    Axes are canonical: D feet to head, H front to back, W patient's right to left.
    Raises `BadData` where a field has another type or shape than it says here, or a
    spacing or affine has no meaning.
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
        """Of `image_hu`."""
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
            right = len(values.shape) == len(shape) and all(
                have > 0 and have == lengths.setdefault(want, have)
                if isinstance(want, str)
                else have == want
                for have, want in zip(values.shape, shape, strict=True)
            )
            if not right:
                wanted = tuple(lengths.get(n, n) for n in shape)
                raise BadData(
                    f"case {self.case_id}: {name} has the shape {values.shape}, "
                    f"not {wanted}"
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


def _check_case_id(case_id: Any) -> str:
    if not isinstance(case_id, str) or not CASE_ID.fullmatch(case_id):
        raise BadData(
            f"{case_id!r} is no case id: letters, digits, '.', '_' and '-' are "
            "allowed, beginning with a letter or digit"
        )
    return case_id


@dataclass(frozen=True, eq=False)
class PackedCase:
    """A record that is open: voxels are unpacked where they are indexed, no others."""

    case_id: str
    version: int
    image_hu: PackedArray | np.ndarray
    label: PackedArray | np.ndarray
    hu: HuStatistics
    grid: dict[str, Any]  # the other fields of `Case`

    def case(self) -> Case:
        """All of it. Raises `BadData` as `Case` does, or where a slab is damaged."""
        return Case(
            image_hu=np.asarray(self.image_hu),
            label=np.asarray(self.label),
            case_id=self.case_id,
            version=self.version,
            **self.grid,
        )


def to_bytes(case: Case) -> bytes:
    """The record of a case."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "case_id": case.case_id,
    }
    for name, (dtype, _) in _ARRAYS.items():
        values = np.ascontiguousarray(getattr(case, name), dtype)
        content = pack(values) if name in _VOXELS else values.tobytes()
        fields[name] = [dtype, list(values.shape), content]
    hu = np.array([case.hu.least, case.hu.mean, case.hu.std], "<f8")
    fields["hu"] = ["<f8", [3], hu.tobytes()]
    packed = msgpack.packb(fields)
    assert packed is not None  # says the type that msgpack's stubs leave open
    return packed


def from_bytes(data: bytes) -> Case:
    """The case of a record; see `open_bytes` for what is refused."""
    return open_bytes(data).case()


def open_bytes(data: bytes) -> PackedCase:
    """The record as it lies there, its voxels still packed.

    Raises `BadData` for anything but a whole record of a version that is known;
    whoever knows the file puts its name before the message.
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
    if version > FORMAT_VERSION:
        raise BadData(
            f"record of format version {version}, this program reads up to "
            f"{FORMAT_VERSION}: update attunet_jax"
        )
    keys = _KEYS | ({"hu"} if version > 1 else set())
    if fields.keys() != keys:
        wrong = sorted(map(repr, fields.keys() ^ keys))
        raise BadData(f"damaged record: missing or unknown field {', '.join(wrong)}")
    case_id = _check_case_id(case_id)
    arrays: dict[str, Any] = {
        name: _packed(name, fields[name])
        if version > 1 and name in _VOXELS
        else _array(name, fields[name], dtype)
        for name, (dtype, _) in _ARRAYS.items()
    }
    if arrays["image_hu"].shape != arrays["label"].shape:
        raise BadData("damaged record: label is of another shape than image_hu")
    arrays["original_shape"] = tuple(arrays["original_shape"].tolist())
    hu = _hu(fields["hu"]) if version > 1 else HuStatistics.of(arrays["image_hu"])
    image_hu, label = (arrays.pop(name) for name in _VOXELS)
    return PackedCase(case_id, version, image_hu, label, hu, arrays)


def _hu(entry: Any) -> HuStatistics:
    values = _array("hu", entry, "<f8")
    if values.shape != (3,) or not np.isfinite(values).all():
        raise BadData(f"damaged record: hu is {values.tolist()}")
    return HuStatistics(*values.tolist())


def _packed(name: str, entry: Any) -> PackedArray:
    dtype, shape, slabs = _entry(name, entry, _ARRAYS[name][0], list)
    if len(shape) != 3 or 0 in shape or not all(type(s) is bytes for s in slabs):
        raise BadData(f"damaged record: {name} is no slabs of three sizes {shape}")
    try:
        return PackedArray(dtype, tuple(shape), slabs)
    except BadData as error:
        raise BadData(f"damaged record: {name}: {error}") from error


def _array(name: str, entry: Any, dtype: str) -> np.ndarray:
    """`[dtype, shape, bytes]` to a read-only view of those bytes."""
    found, shape, raw = _entry(name, entry, dtype, bytes)
    count = math.prod(shape)
    if count * found.itemsize != len(raw):
        raise BadData(
            f"damaged record: {name} of shape {shape} has {len(raw)} bytes, not "
            f"{count * found.itemsize}"
        )
    return np.frombuffer(raw, found).reshape(shape)


def _entry(
    name: str, entry: Any, dtype: str, content: type
) -> tuple[np.dtype, list[int], Any]:
    """The parts of `[dtype, shape, content]`; only the type it must have is read."""
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
