"""Reads a DICOM series of CT slices as one canonical `Volume` in HU."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder

from attunet_jax.errors import BadData, one_line
from attunet_jax.volume.dicom.contents import choose, contents
from attunet_jax.volume.dicom.files import dicom_files
from attunet_jax.volume.dicom.padding import padding_of
from attunet_jax.volume.dicom.series import (
    SliceHeader,
    dicom_errors,
    header_of,
    no_ct_slice,
    read_dataset,
)
from attunet_jax.volume.dicom.stack import stack
from attunet_jax.volume.geometry import canonical
from attunet_jax.volume.volume import Grid, Stored, Volume, fits_int16

# What pydicom cannot decode is reported by `BadData`, not by its own log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
# The best codecs shrink an empty slice about this much; a header that claims more is
# wrong.
_MAX_COMPRESSION_RATIO = 5000


def read_dicom(
    folder: str | Path, series: str | None = None, one_of: Collection[str] = ()
) -> Volume:
    """Reads the series in `folder` in HU, `[D, H, W]`; see `read_scan` for several.

    The type is int16 if every value, rescaled by its slice's slope and intercept, is a
    whole number in its range, else float32. The grid is that of the NIfTI file that
    dcm2niix writes: columns, rows from the last to the first, slices along the normal.
    Raises `BadData` naming the file, as `choose` and `stack` do.
    """
    folder = Path(folder)
    found = contents(folder)
    chosen = choose(folder, found, series, one_of)
    ordered, affine = stack(folder, chosen.headers)
    _check_sizes(ordered)
    pixels, padding, held = _read_slices(folder, ordered)
    # Rows grow upwards in dcm2niix's files; world positions stay the same.
    rows_flipped = np.diag([1.0, -1.0, 1.0, 1.0])
    rows_flipped[1, 3] = ordered[0].rows - 1
    affine = affine @ rows_flipped
    voxels, view_affine = _canonical(pixels, affine)
    slices, rows, columns = pixels.shape
    return Volume(
        voxels=voxels,
        affine=view_affine,
        grid=Grid((columns, rows, slices), affine),
        path=str(folder),
        padding=None if padding is None else _canonical(padding, affine)[0],
        stored=held,
    )


def _canonical(pixels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    voxels, view_affine = canonical(pixels[:, ::-1].transpose(2, 1, 0), affine)
    return np.ascontiguousarray(voxels), view_affine


def max_voxels(folder: Path) -> int:
    """Returns an upper bound of the voxels in `folder`, by one header and file count.

    Raises `BadData` where the first slice is damaged or smaller than its header says,
    or where there is none.
    """
    files = dicom_files(folder)
    for path in files:
        dataset = read_dataset(path, headers_only=True)
        if not no_ct_slice(path, dataset):
            first = header_of(path, dataset)
            _check_sizes([first])
            return first.rows * first.columns * len(files)
    raise BadData(f"{folder}: no slices of a CT series in it")


def _check_sizes(ordered: Sequence[SliceHeader]) -> None:
    """Checks that each file can hold its pixels, before memory is allocated."""
    for header in ordered:
        claimed = header.rows * header.columns * header.bits // 8
        bound = header.path.stat().st_size
        if header.syntax.is_compressed:
            bound *= _MAX_COMPRESSION_RATIO
        if claimed > bound:
            raise BadData(
                f"{header.path}: truncated: {header.rows} x {header.columns} pixels do "
                "not fit in the file; copy it again"
            )


def _read_slices(
    folder: Path, ordered: Sequence[SliceHeader]
) -> tuple[np.ndarray, np.ndarray | None, Stored | None]:
    """Returns `[slice, row, column]` in HU, int16 if that holds all values; which of
    them are padding, bool, None where none are; and what the files hold."""
    held = None
    shape = (len(ordered), ordered[0].rows, ordered[0].columns)
    padding = None
    try:
        volume = np.empty(shape, np.int16)
        for index, header in enumerate(ordered):
            stored, dataset = _decoded(header)
            hu = stored * header.slope + header.intercept
            held = Stored.of(hu, f"uint{header.bits}").joined(held)
            if volume.dtype == np.int16 and not fits_int16(hu):
                volume = volume.astype(np.float32)
            volume[index] = hu
            of_slice = padding_of(dataset, stored, hu)
            if of_slice is not None:
                padding = np.zeros(shape, bool) if padding is None else padding
                padding[index] = of_slice
    except MemoryError as error:
        raise BadData(f"{folder}: too large for the memory of this machine") from error
    return volume, padding, held


def _decoded(header: SliceHeader) -> tuple[np.ndarray, pydicom.Dataset]:
    """Returns the stored numbers of a slice, float64 `[row, column]`, and its tags."""
    dataset = read_dataset(header.path, headers_only=False)
    if "PixelData" not in dataset:
        raise BadData(f"{header.path}: no pixels in it; export the series again")
    compressed = header.syntax.is_compressed
    if compressed and not _has_decoder(header):
        raise BadData(
            f"{header.path}: compressed as {header.syntax.name} ({header.syntax}), "
            "which cannot be decoded here; decompress the series, with gdcmconv --raw "
            "for example"
        )
    try:
        with dicom_errors(header.path):
            pixels = dataset.pixel_array
    except BadData as error:
        # For compressed pixels the libraries report only which of them failed.
        reason = one_line(error.__cause__ or error).split(" - ")[0]
        raise BadData(
            f"{header.path}: its pixels ({header.syntax.name}) cannot be decoded"
            + ("" if compressed else f" ({reason})")
            + "; copy or export it again"
        ) from error
    if pixels.shape != (header.rows, header.columns):
        raise BadData(f"{header.path}: its pixels do not have the size of its header")
    return pixels.astype(np.float64), dataset


def _has_decoder(header: SliceHeader) -> bool:
    try:
        return get_decoder(header.syntax).is_available
    except NotImplementedError:  # pydicom knows no decoder, of video for example
        return False
