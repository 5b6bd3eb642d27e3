"""A `Case` in, bytes out, and back: what one record of a prepared data set holds.

A record is a msgpack map that says what it is; no code in it is ever run:

    {"format": "attunet_jax.case", "version": 1, "case_id": "amos_0007",
     "image_hu": ["<i2", [D, H, W], bytes], "label": ["|u1", [D, H, W], bytes],
     "spacing_mm": ["<f8", [3], bytes], "affine": ["<f8", [4, 4], bytes],
     "original_shape": ["<i8", [3], bytes], "original_affine": ["<f8", [4, 4], bytes]}

Arrays are little-endian and in C order.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from attunet_jax.errors import BadData, one_line

FORMAT = "attunet_jax.case"
FORMAT_VERSION = 1
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
_KEYS = {"format", "version", "case_id", *_ARRAYS}


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

    def __post_init__(self) -> None:
        if not isinstance(self.case_id, str) or not CASE_ID.fullmatch(self.case_id):
            raise BadData(
                f"{self.case_id!r} is no case id: letters, digits, '.', '_' and '-' "
                "are allowed, beginning with a letter or digit"
            )
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


def to_bytes(case: Case) -> bytes:
    """The record of a case."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": case.version,
        "case_id": case.case_id,
    }
    for name, (dtype, _) in _ARRAYS.items():
        values = np.ascontiguousarray(getattr(case, name), dtype)
        fields[name] = [dtype, list(values.shape), values.tobytes()]
    packed = msgpack.packb(fields)
    assert packed is not None  # says the type that msgpack's stubs leave open
    return packed


def from_bytes(data: bytes) -> Case:
    """The case of a record; its arrays are read-only views of the decoded bytes.

    Raises `BadData` for anything but a whole record of this version; whoever knows
    the file puts its name before the message.
    """
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadData(
            f"damaged record of {len(data)} bytes ({one_line(error)})"
        ) from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise BadData("this record is no case of attunet_jax")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        raise BadData(f"damaged record: its version is {version!r}")
    if version > FORMAT_VERSION:
        raise BadData(
            f"record of format version {version}, this program reads up to "
            f"{FORMAT_VERSION}: update attunet_jax"
        )
    if fields.keys() != _KEYS:
        wrong = sorted(map(repr, fields.keys() ^ _KEYS))
        raise BadData(f"damaged record: missing or unknown field {', '.join(wrong)}")
    arrays: dict[str, Any] = {name: _array(name, fields[name]) for name in _ARRAYS}
    arrays["original_shape"] = tuple(arrays["original_shape"].tolist())
    return Case(**arrays, case_id=fields["case_id"], version=version)


def _array(name: str, entry: Any) -> np.ndarray:
    """`[dtype, shape, bytes]` to an array; only the type a field must have is read."""
    dtype = np.dtype(_ARRAYS[name][0])
    match entry:
        case [dtype.str, list(shape), bytes(raw)]:
            pass
        case [str(other), list(), bytes()]:
            raise BadData(f"damaged record: {name} is of type {other!r}")
        case _:
            raise BadData(f"damaged record: {name} is no [dtype, shape, bytes]")
    count = 1
    for n in shape:
        if type(n) is not int or n < 0:
            raise BadData(f"damaged record: {name} has the shape {shape}")
        count *= n
    if count * dtype.itemsize != len(raw):
        raise BadData(
            f"damaged record: {name} of shape {shape} has {len(raw)} bytes, not "
            f"{count * dtype.itemsize}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)
