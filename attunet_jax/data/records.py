"""Converts a `Case` to the bytes of one record of a prepared data set, and back.

A record is a msgpack map of plain values; reading one never runs code from it:

    {"format": "attunet_jax.case", "version": 3, "case_id": "amos_0007",
     "image_hu": ["<i2", [D, H, W], slabs], "label": ["|u1", [D, H, W], slabs],
     "spacing_mm": ["<f8", [3], bytes], "affine": ["<f8", [4, 4], bytes],
     "original_shape": ["<i8", [3], bytes], "original_affine": ["<f8", [4, 4], bytes],
     "original_placement": ["<f8", [25], bytes],
     "hu": ["<f8", [3], bytes], "organ_voxels": ["<u4", [slabs, organs], bytes]}

Arrays are little-endian and in C order; `hu` is lowest value, mean and deviation of the
image. Voxels are stored as slabs (slabs.py). `organ_voxels` is how many voxels of label
1, 2, ... each slab holds, up to the largest label of the case: a crop that is centred
on an organ unpacks the one slab that holds its centre. Records of version 2 lack it.
`original_placement` is there where the scan was a NIfTI file, from version 3 on.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgpack
import numpy as np

from attunet_jax.data.case_id import is_case_id
from attunet_jax.data.labels import LARGEST_ORGAN
from attunet_jax.data.slabs import SLAB_DEPTH, PackedArray, count_organ_voxels, pack
from attunet_jax.errors import BadData, one_line
from attunet_jax.intensity import HuStatistics

FORMAT = "attunet_jax.case"
FORMAT_VERSION = 3
OLDEST_VERSION = 2

# Type and shape of each array; a letter is a length above 0, the same everywhere.
_ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "image_hu": ("<i2", ("D", "H", "W")),
    "label": ("|u1", ("D", "H", "W")),
    "spacing_mm": ("<f8", (3,)),
    "affine": ("<f8", (4, 4)),
    "original_shape": ("<i8", (3,)),
    "original_affine": ("<f8", (4, 4)),
}
# Arrays that a record may lack.
_OPTIONAL: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "original_placement": ("<f8", (25,)),
}
_VOXELS = ("image_hu", "label")
_KEYS = {"format", "version", "case_id", "hu", *_ARRAYS}
_NEW_KEYS = {3: {"organ_voxels"}}  # version -> fields that it added


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
    # float64 (25,), `numbers` of the NIfTI header's `Placement`
    original_placement: np.ndarray | None = None
    version: int = FORMAT_VERSION

    @cached_property
    def hu(self) -> HuStatistics:
        """Statistics of `image_hu`."""
        return HuStatistics.of(self.image_hu)

    @cached_property
    def organ_voxels(self) -> np.ndarray:
        """See `count_organ_voxels`."""
        return count_organ_voxels(self.label)

    def __post_init__(self) -> None:
        _check_case_id(self.case_id)
        lengths: dict[int | str, int] = {}
        for name, (dtype, shape) in (_ARRAYS | _OPTIONAL).items():
            if name in _OPTIONAL and getattr(self, name) is None:
                continue
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
    stored_organ_voxels: np.ndarray | None = None  # None: of an older version

    @cached_property
    def organ_voxels(self) -> np.ndarray:
        """See `count_organ_voxels`; unpacks the whole label map if it is not stored."""
        if self.stored_organ_voxels is None:
            return count_organ_voxels(np.asarray(self.label))
        return self.stored_organ_voxels

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
    for name, (dtype, _) in (_ARRAYS | _OPTIONAL).items():
        if name in _OPTIONAL and getattr(case, name) is None:
            continue
        values = np.ascontiguousarray(getattr(case, name), dtype)
        content = pack(values) if name in _VOXELS else values.tobytes()
        fields[name] = [dtype, list(values.shape), content]
    hu = np.array([case.hu.min, case.hu.mean, case.hu.std], "<f8")
    fields["hu"] = ["<f8", [3], hu.tobytes()]
    counts = case.organ_voxels
    fields["organ_voxels"] = ["<u4", list(counts.shape), counts.tobytes()]
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
    if not OLDEST_VERSION <= version <= FORMAT_VERSION:
        remedy = "update attunet_jax"
        if version < OLDEST_VERSION:
            remedy = "prepare the data again"
        raise BadData(
            f"record of format version {version}, this program reads "
            f"{OLDEST_VERSION} to {FORMAT_VERSION}: {remedy}"
        )
    keys = _KEYS.union(*(new for since, new in _NEW_KEYS.items() if version >= since))
    if fields.keys() - _OPTIONAL.keys() != keys:
        wrong = sorted(map(repr, fields.keys() - _OPTIONAL.keys() ^ keys))
        raise BadData(f"damaged record: missing or unknown field {', '.join(wrong)}")
    case_id = _check_case_id(case_id)
    image_hu, label = (_packed(name, fields[name]) for name in _VOXELS)
    if image_hu.shape != label.shape:
        raise BadData("damaged record: label is of another shape than image_hu")
    grid: dict[str, Any] = {
        name: _array(name, fields[name], dtype)
        for name, (dtype, _) in (_ARRAYS | _OPTIONAL).items()
        if name not in _VOXELS and name in fields
    }
    grid["original_shape"] = tuple(grid["original_shape"].tolist())
    counts = _organ_voxels(fields.get("organ_voxels"), label)
    hu = _hu(fields["hu"])
    return PackedCase(case_id, version, image_hu, label, hu, grid, counts)


def _organ_voxels(entry: object, label: PackedArray) -> np.ndarray | None:
    if entry is None:
        return None
    counts = _array("organ_voxels", entry, "<u4")
    depth, height, width = label.shape
    if counts.ndim != 2 or (
        len(counts) != len(label.slabs)
        or counts.shape[1] > LARGEST_ORGAN
        or counts.sum(1).max() > min(depth, SLAB_DEPTH) * height * width
    ):
        raise BadData("damaged record: organ_voxels is not of this label")
    return counts


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
