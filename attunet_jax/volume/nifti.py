"""Reads NIfTI files as canonical `Volume`s and writes arrays to NIfTI files."""

import gzip
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.nifti1 import Nifti1Header

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import replacing
from attunet_jax.volume.geometry import canonical_grid, from_canonical
from attunet_jax.volume.nifti_header import HEADER_BYTES, Header, parse_header
from attunet_jax.volume.volume import Grid, Stored, Volume, fits_int16

# Deflate shrinks by 1032 at most; a header that claims more is wrong.
_MAX_DEFLATE_RATIO = 1100
_GZIP_LEVEL = 3
# Of a NIfTI-1 header and the word that says no extension follows.
_WRITTEN_HEADER_BYTES = 352
# Slices are read together up to this size, which fits in the cache.
_SLAB_BYTES = 2**22
# Of labels that a program computed with: 0.9999 is 1, but no half of a partial volume.
_LABEL_ROUNDING = 1e-3
_FLOAT32 = 2.0**-22  # two steps of float32, relative
# Any: the stubs of isal declare IsalError an instance, not a class.
_DAMAGED: Any = (EOFError, IsalError, gzip.BadGzipFile)
_Stream = BufferedReader | igzip.IGzipFile


def read_image(path: str | Path) -> Volume:
    """Reads the scan at `path` (.nii or .nii.gz) in HU, `[D, H, W]`.

    The type is int16 if every value, after the file's scaling, is a whole number in its
    range, else float32. Voxels are read slab by slab into the result, with little
    memory temporarys. Raises `BadData` if the file is no such scan.
    """
    path = Path(path)
    bad = 0
    stored = None
    with _opened(path) as (stream, header):
        result, target = _empty(header, np.dtype(np.int16))
        for where, raw in _slabs(path, stream, header):
            values, not_finite = _scaled(raw, header)
            bad += not_finite
            if not bad:
                stored = Stored.of(values, header.dtype.name).joined(stored)
            if result.dtype == np.int16 and not (bad or fits_int16(values)):
                result, target = _widened(result, header, np.dtype(np.float32))
            if not bad:
                target[..., where] = values
    if bad:
        raise BadData(
            f"{path}: {bad} voxels are NaN or infinite; replace them (air is -1024 HU)"
        )
    return replace(_volume(path, result, header), stored=stored)


def read_grid(path: str | Path) -> tuple[Volume, bool]:
    """Reads the scan at `path` without its voxels, and whether its type fits in int16.

    `voxels` is one zero broadcast to the scan's shape, which takes no memory. Raises
    `BadData` where the header is damaged.
    """
    path = Path(path)
    with _opened(path) as (_, header):
        plain = header.slope == 1 and header.inter == 0
        fits = plain and np.can_cast(header.dtype, np.int16)
        shape = canonical_grid(header.grid)[0]
        return _volume(path, np.broadcast_to(np.int16(0), shape), header), fits


def read_labels(path: str | Path) -> Volume:
    """Reads the label map at `path`, `[D, H, W]`, uint8 or uint16 (labels above 255).

    Labels are whole numbers from 0 to 65535 in any on-disk type, but for rounding by
    the program that wrote or scaled them; others raise `BadData`.
    """
    path = Path(path)
    bad, fractional, fraction = 0, 0, 0.0
    low, high = 0.0, 0.0
    with _opened(path) as (stream, header):
        result, target = _empty(header, np.dtype(np.uint8))
        for where, raw in _slabs(path, stream, header):
            values, not_finite = _scaled(raw, header)
            bad += not_finite
            if values.dtype.kind == "f" and not bad:
                whole = np.rint(values)
                off = np.abs(values - whole)
                parts = values[off > _label_rounding(header) + _FLOAT32 * whole]
                if parts.size and not fractional:
                    fraction = float(parts[0])
                fractional += parts.size
                values = whole
            low, high = min(low, values.min()), max(high, values.max())
            if bad or fractional or low < 0 or high > 65535:
                continue  # the rest is read for the message
            if high > 255 and result.dtype == np.uint8:
                result, target = _widened(result, header, np.dtype(np.uint16))
            target[..., where] = values
    if bad:
        raise BadData(f"{path}: {bad} voxels are NaN or infinite; replace them by 0")
    if fractional:
        raise BadData(
            f"{path}: label {fraction:g} is not a whole number "
            f"({fractional} such voxels); is this the label map?"
        )
    if low < 0 or high > 65535:
        raise BadData(
            f"{path}: label {low if low < 0 else high:g} is outside 0 to 65535; "
            "is this the label map?"
        )
    return _volume(path, result, header)


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes `array` (file order) with `affine` (index to world mm, RAS+).

    `path` ends with .nii or .nii.gz. sform and qform get code 1 and the unit is mm.
    Missing folders are made. The file appears whole or not at all. Raises `BadData` if
    the folder cannot be written.
    """
    header = Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    _write(Path(path), array, header)


def write_on_grid(path: str | Path, labels_dhw: np.ndarray, grid: Grid) -> None:
    """Writes `labels_dhw`, on the canonical view of `grid`, in the grid's own layout.

    Axis order, shape and affine are the scan's, and where it is a NIfTI file qform,
    sform, their codes, pixdim and unit too, so that every program shows the labels
    where it shows the scan. The type is uint8. Raises as `write_nifti` does, and
    `ValueError` if labels do not fit in uint8 or on the grid.
    """
    labels = labels_dhw.astype(np.uint8, copy=False)
    if labels is not labels_dhw and not np.array_equal(labels, labels_dhw):
        raise ValueError(f"{path}: labels must be whole numbers from 0 to 255")
    write_values_on_grid(path, labels, grid)


def write_values_on_grid(path: str | Path, values_dhw: np.ndarray, grid: Grid) -> None:
    """Writes values as `write_on_grid` does labels, in their own type."""
    array = from_canonical(values_dhw, grid)
    if grid.placement is None:
        write_nifti(path, array, grid.affine)
        return
    header = Nifti1Header()
    header.set_data_shape(array.shape)
    grid.placement.write_into(header)
    _write(Path(path), array, header)


def _write(path: Path, array: np.ndarray, header: Nifti1Header) -> None:
    """Writes `array` after `header`, as it is: nibabel's images repair theirs."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadArguments(f"{path}: output name must end with .nii or .nii.gz")
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", _WRITTEN_HEADER_BYTES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, ending="part") as temporary, temporary.open("wb") as file:
            if path.name.endswith(".gz"):
                # Without time and name inside, equal arrays give equal files.
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                    _write_voxels(packed, array, header)
            else:
                _write_voxels(file, array, header)
    except OSError as error:
        raise BadData(
            f"{path.parent}: cannot write {path.name} there "
            f"({error.strerror or error}); choose another folder"
        ) from error


def _write_voxels(file: Any, array: np.ndarray, header: Nifti1Header) -> None:
    file.write(header.binaryblock.ljust(_WRITTEN_HEADER_BYTES, b"\0"))
    dtype = header.get_data_dtype()
    for part in array.T:  # the first axis is the fastest in the file
        file.write(np.ascontiguousarray(part, dtype).data)


def _volume(path: Path, voxels: np.ndarray, header: Header) -> Volume:
    return Volume(voxels, canonical_grid(header.grid)[1], header.grid, str(path))


def _empty(header: Header, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Returns an unfilled array `[D, H, W]` and the view of it in the file's order."""
    result = np.empty(canonical_grid(header.grid)[0], dtype)
    return result, from_canonical(result, header.grid)


def _widened(
    result: np.ndarray, header: Header, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same pair in a wider type, with the values that were read so far."""
    wider = result.astype(dtype)
    return wider, from_canonical(wider, header.grid)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[_Stream, Header]]:
    """Opens the unpacked stream and its header.

    The header claims no more bytes than the file can hold, so that a wrong header never
    leads to a large allocation. Errors inside the `with` become `BadData` of the file.
    """
    packed = path.name.lower().endswith(".nii.gz")
    if not packed and not path.name.lower().endswith(".nii"):
        raise BadData(f"{path}: not a .nii or .nii.gz file; export the scan as NIfTI")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadData(f"{path}: not a file; name a .nii or .nii.gz file")
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed and not is_gzip:
                raise BadData(
                    f"{path}: content is not gzip; rename it to .nii if it is a plain "
                    "NIfTI file, else get it again"
                )
            if is_gzip and not packed:
                raise BadData(f"{path}: content is gzip; rename it to .nii.gz")
            # Closed here: closing it by its finalizer would lose a signal's exception.
            with igzip.IGzipFile(fileobj=file) if packed else file as stream:
                max_bytes = status.st_size * (_MAX_DEFLATE_RATIO if packed else 1)
                header = parse_header(path, stream.read(HEADER_BYTES))
                if header.offset + header.data_bytes > max_bytes:
                    raise _truncated(path, header, max_bytes - header.offset)
                yield stream, header
    except FileNotFoundError as error:
        raise BadData(f"{path}: no such file; check the path") from error
    except _DAMAGED as error:
        raise BadData(
            f"{path}: truncated or damaged gzip data; copy or download it again"
        ) from error
    except OSError as error:
        raise BadData(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    except MemoryError as error:
        raise BadData(f"{path}: too large for the memory of this machine") from error


def _slabs(
    path: Path, stream: _Stream, header: Header
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slices of the third file axis, their voxels as stored), to the last.

    The next array overwrites each one.
    """
    stream.seek(header.offset)
    x, y, z = header.shape
    count = max(1, min(z, _SLAB_BYTES // (x * y * header.dtype.itemsize)))
    # The first axis is the fastest in the file: the reversed shape in C order.
    slab = np.empty((count, y, x), header.dtype)
    done = 0
    for start in range(0, z, count):
        part = slab[: z - start]
        target = part.reshape(-1).view(np.uint8).data
        filled = 0
        while filled < len(target):
            read = stream.readinto(target[filled:])
            if not read:
                raise _truncated(path, header, done + filled)
            filled += read
        done += filled
        yield slice(start, start + len(part)), part.T
    stream.read(1 << 20)  # up to the end, where gzip compares its checksum


def _truncated(path: Path, header: Header, held: int) -> BadData:
    return BadData(
        f"{path}: truncated: the header says {header.data_bytes} bytes of voxels, the "
        f"file holds at most {max(held, 0)}; copy or download it again"
    )


def _scaled(raw: np.ndarray, header: Header) -> tuple[np.ndarray, int]:
    """Returns the values of stored numbers, and how many are not finite.

    Integers without scaling are returned as they are, others scaled in float32.
    """
    if header.slope == 1 and header.inter == 0 and raw.dtype.kind in "iu":
        return raw, 0
    with np.errstate(over="ignore", invalid="ignore"):
        values = (raw.astype(np.float64) * header.slope + header.inter).astype(
            np.float32
        )
    return values, values.size - int(np.count_nonzero(np.isfinite(values)))


def _label_rounding(header: Header) -> float:
    """Returns by how much a value of a label map may be off a whole number.

    A writer that scales labels into integers rounds them to half a step of its slope;
    steps above a half would leave two whole numbers to choose from.
    """
    if header.dtype.kind == "f" or header.slope in (1, -1):
        return _LABEL_ROUNDING
    half_step = abs(header.slope) / 2
    return max(half_step, _LABEL_ROUNDING) if half_step <= 0.25 else _LABEL_ROUNDING
