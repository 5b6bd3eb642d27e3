"""NIfTI files in, canonical `Volume`s out; arrays in, NIfTI files out.

This folder is the project's only door to nibabel.
"""

import gzip
import os
import stat
import zlib
from io import BufferedReader
from pathlib import Path

import nibabel
import numpy as np

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.volume.header import HEADER_BYTES, Header, parse_header
from attunet_jax.volume.orientation import canonical, from_canonical
from attunet_jax.volume.volume import Grid, Volume

# Deflate cannot shrink more than this (1032 : 1); a header that claims more lies.
_MOST_DEFLATE = 1100
_GZIP_LEVEL = 3
_INT16 = np.iinfo(np.int16)


def read_image(path: str | Path) -> Volume:
    """The scan at `path` (.nii or .nii.gz) in HU, `[D, H, W]`.

    int16 if every value, after the file's scaling, is a whole number in its range,
    else float32. Raises `BadData` if the file is no such scan: see `header.py` and
    below for what is refused.
    """
    path = Path(path)
    raw, header = _load(path)
    return _volume(path, _scaled(path, raw, header), header)


def read_labels(path: str | Path) -> Volume:
    """The label map at `path`, `[D, H, W]` uint8, or uint16 if a label is above 255.

    Whole numbers from 0 to 65535 in any on-disk type; others raise `BadData`.
    """
    path = Path(path)
    raw, header = _load(path)
    values = _scaled(path, raw, header)
    if values.dtype == np.float32:
        fractional = values[np.rint(values) != values]
        if fractional.size:
            raise BadData(
                f"{path}: label {fractional[0]:g} is not a whole number "
                f"({fractional.size} such voxels); is this the label map?"
            )
    least, most = values.min(), values.max()
    if least < 0 or most > 65535:
        raise BadData(
            f"{path}: label {least if least < 0 else most:g} is outside 0 to 65535; "
            "is this the label map?"
        )
    dtype = np.uint8 if most <= 255 else np.uint16
    return _volume(path, values.astype(dtype), header)


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """`array` in file order with `affine` (index to world mm, RAS+) to .nii or .nii.gz.

    sform and qform get code 1, units are mm; missing folders are made. The file
    appears whole or not at all. Raises `BadData` if the folder cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadArguments(f"{path}: output name must end with .nii or .nii.gz")
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                if path.name.endswith(".gz"):
                    # No time and no name inside: equal arrays are equal files.
                    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                        image.to_stream(packed)
                else:
                    image.to_stream(file)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise BadData(
            f"{path.parent}: cannot write {path.name} there "
            f"({error.strerror or error}); choose another folder"
        ) from error


def write_on_grid(path: str | Path, labels_dhw: np.ndarray, grid: Grid) -> None:
    """`labels_dhw` on the canonical view of `grid` to a file like the scan's own.

    Axis order, shape and affine are the scan's, the type is uint8. Raises as
    `write_nifti`, and `ValueError` if labels do not fit in uint8 or on the grid.
    """
    labels = labels_dhw.astype(np.uint8, copy=False)
    if labels is not labels_dhw and not np.array_equal(labels, labels_dhw):
        raise ValueError(f"{path}: labels must be whole numbers from 0 to 255")
    write_nifti(path, from_canonical(labels, grid), grid.affine)


def _volume(path: Path, array: np.ndarray, header: Header) -> Volume:
    voxels, affine = canonical(array, header.affine)
    return Volume(
        voxels=np.ascontiguousarray(voxels),
        affine=affine,
        grid=Grid(header.shape, header.affine),
        path=str(path),
    )


def _load(path: Path) -> tuple[np.ndarray, Header]:
    """Voxels as stored, in file order, and the header."""
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
            if not packed:
                return _load_stream(path, file, status.st_size)
            with gzip.GzipFile(fileobj=file) as stream:
                return _load_stream(path, stream, status.st_size * _MOST_DEFLATE)
    except FileNotFoundError as error:
        raise BadData(f"{path}: no such file; check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadData(
            f"{path}: truncated or damaged gzip data; copy or download it again"
        ) from error
    except OSError as error:
        raise BadData(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    except MemoryError as error:
        raise BadData(f"{path}: too large for the memory of this machine") from error


def _load_stream(
    path: Path, stream: BufferedReader | gzip.GzipFile, most_bytes: int
) -> tuple[np.ndarray, Header]:
    """`most_bytes`: what the file can hold, known before memory is asked for."""
    header = parse_header(path, stream.read(HEADER_BYTES))
    if header.offset + header.data_bytes > most_bytes:
        raise _truncated(path, header, most_bytes - header.offset)
    stream.seek(header.offset)
    # As the file has them, first axis fastest: the reversed shape in C order.
    raw = np.empty(header.shape[::-1], header.dtype)
    target = raw.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])
        if not count:
            raise _truncated(path, header, done)
        done += count
    stream.read(1 << 20)  # to the end: gzip compares its checksum only there
    return raw.T, header


def _truncated(path: Path, header: Header, held: int) -> BadData:
    return BadData(
        f"{path}: truncated: the header says {header.data_bytes} bytes of voxels, the "
        f"file holds at most {max(held, 0)}; copy or download it again"
    )


def _scaled(path: Path, raw: np.ndarray, header: Header) -> np.ndarray:
    """Stored numbers to values: int16 if that holds them all, else float32."""
    plain = header.slope == 1 and header.inter == 0
    if plain and raw.dtype.kind in "iu":
        if _INT16.min <= raw.min() and raw.max() <= _INT16.max:
            return raw.astype(np.int16)
        return raw.astype(np.float32)
    values = np.empty_like(raw, dtype=np.float32)
    bad, whole = 0, True
    # Slice by slice: float64 for all of a scan at once would be four times the file.
    for index in range(raw.shape[2]):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = raw[..., index].astype(np.float64) * header.slope + header.inter
            values[..., index] = scaled
        part = values[..., index]
        bad += part.size - np.count_nonzero(np.isfinite(part))
        whole = whole and not bad and bool((np.rint(part) == part).all())
    if bad:
        raise BadData(
            f"{path}: {bad} voxels are NaN or infinite; replace them (air is -1024 HU)"
        )
    if whole and _INT16.min <= values.min() and values.max() <= _INT16.max:
        return values.astype(np.int16)
    return values
