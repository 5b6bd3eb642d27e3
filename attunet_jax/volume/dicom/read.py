"""A DICOM series of CT slices in, one canonical `Volume` in HU out.

This folder is the project's only door to pydicom.
"""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from pydicom.pixels.decoders.base import get_decoder

from attunet_jax.errors import BadData, one_line
from attunet_jax.volume.dicom.files import dicom_files
from attunet_jax.volume.dicom.series import (
    SliceHeader,
    dicom_errors,
    header_of,
    read_dataset,
    series_headers,
)
from attunet_jax.volume.dicom.stack import stack
from attunet_jax.volume.geometry import canonical
from attunet_jax.volume.volume import Grid, Volume

# What it cannot decode is said in one line of ours, not with its tracebacks.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
_INT16 = np.iinfo(np.int16)
# The best codecs shrink an empty slice about so; a header that claims more lies.
_MOST_COMPRESSION = 5000


def read_dicom(
    folder: str | Path, series: str | None = None, one_of: Collection[str] = ()
) -> Volume:
    """The series in `folder` in HU, `[D, H, W]`; which of several: see `read_scan`.

    int16 if every value, rescaled by its slice's slope and intercept, is a whole
    number in its range, else float32. The grid is that of the NIfTI file dcm2niix
    writes: columns, rows from the last to the first, slices along the normal. Raises
    `BadData` naming the file: see `dicom_series.py` and `dicom_stack.py` for what is
    refused.
    """
    folder = Path(folder)
    ordered, affine = stack(folder, series_headers(folder, series, one_of))
    _check_sizes(ordered)
    pixels = _read_slices(folder, ordered)
    # dcm2niix's rows grow upwards as NIfTI's y does; world positions stay.
    rows_turned = np.diag([1.0, -1.0, 1.0, 1.0])
    rows_turned[1, 3] = ordered[0].rows - 1
    affine = affine @ rows_turned
    voxels, view_affine = canonical(pixels[:, ::-1].transpose(2, 1, 0), affine)
    slices, rows, columns = pixels.shape
    return Volume(
        voxels=np.ascontiguousarray(voxels),
        affine=view_affine,
        grid=Grid((columns, rows, slices), affine),
        path=str(folder),
    )


def most_voxels(folder: Path) -> int:
    """Voxels of the series in `folder` at most: of one header and the count of files.

    Raises `BadData` where the first file is no slice, or cannot hold what it claims.
    """
    files = dicom_files(folder)
    if not files:
        raise BadData(f"{folder}: no DICOM files in it")
    first = header_of(files[0], read_dataset(files[0], headers_only=True))
    _check_sizes([first])
    return first.rows * first.columns * len(files)


def _check_sizes(ordered: Sequence[SliceHeader]) -> None:
    """Each file can hold its pixels, before memory is asked for."""
    for header in ordered:
        claimed = header.rows * header.columns * header.bits // 8
        most = header.path.stat().st_size
        if header.syntax.is_compressed:
            most *= _MOST_COMPRESSION
        if claimed > most:
            raise BadData(
                f"{header.path}: truncated: {header.rows} x {header.columns} pixels do "
                "not fit in the file; copy it again"
            )


def _read_slices(folder: Path, ordered: Sequence[SliceHeader]) -> np.ndarray:
    """`[slice, row, column]` in HU, int16 as long as that holds all values."""
    shape = (len(ordered), ordered[0].rows, ordered[0].columns)
    try:
        volume = np.empty(shape, np.int16)
        for index, header in enumerate(ordered):
            hu = _decoded(header) * header.slope + header.intercept
            if volume.dtype == np.int16 and not _fits_int16(hu):
                volume = volume.astype(np.float32)
            volume[index] = hu
    except MemoryError as error:
        raise BadData(f"{folder}: too large for the memory of this machine") from error
    return volume


def _fits_int16(hu: np.ndarray) -> bool:
    within = _INT16.min <= hu.min() and hu.max() <= _INT16.max
    return bool(within and (np.rint(hu) == hu).all())


def _decoded(header: SliceHeader) -> np.ndarray:
    """The stored numbers of a slice, float64 `[row, column]`."""
    dataset = read_dataset(header.path, headers_only=False)
    if "PixelData" not in dataset:
        raise BadData(f"{header.path}: no pixels in it; export the series again")
    compressed = header.syntax.is_compressed
    if compressed and not _has_decoder(header):
        raise BadData(
            f"{header.path}: compressed as {header.syntax.name} ({header.syntax}), "
            "which cannot be decoded here; decompress the series, with gdcmconv --raw "
            "for one"
        )
    try:
        with dicom_errors(header.path):
            pixels = dataset.pixel_array
    except BadData as error:
        # Of compressed ones libraries say only which of them failed.
        said = one_line(error.__cause__ or error).split(" - ")[0]
        raise BadData(
            f"{header.path}: its pixels ({header.syntax.name}) cannot be decoded"
            + ("" if compressed else f" ({said})")
            + "; copy or export it again"
        ) from error
    if pixels.shape != (header.rows, header.columns):
        raise BadData(f"{header.path}: its pixels do not have the size of its header")
    return pixels.astype(np.float64)


def _has_decoder(header: SliceHeader) -> bool:
    try:
        return get_decoder(header.syntax).is_available
    except NotImplementedError:  # no decoder is known, as of video
        return False
