"""Reads a scan: a NIfTI file, or the folder of a DICOM series."""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.files import local_path
from attunet_jax.volume.dicom.files import is_dicom
from attunet_jax.volume.dicom.read import read_dicom
from attunet_jax.volume.endings import split_ending
from attunet_jax.volume.formats import read_image
from attunet_jax.volume.volume import Volume


def read_scan(
    path: str | Path, series: str | None = None, *, one_of: Collection[str] = ()
) -> Volume:
    """Reads the scan at `path` in HU, `[D, H, W]`, int16 or float32.

    In a DICOM folder with several scans, `series` names the one to read (a UID, or
    UID:PART where a series holds several), or exactly one of the names in `one_of` is
    that of one of them. Raises `BadData` as `read_image` and `read_dicom` do.
    """
    path = local_path(path)
    # With an ending it is a file, even where a folder has that name.
    if split_ending(path.name)[1] is None:
        if path.is_dir():
            return read_dicom(path, series, one_of)
        if path.is_file() and is_dicom(path):
            raise BadData(f"{path}: one file of a DICOM series; name its folder")
    return read_image(path)
