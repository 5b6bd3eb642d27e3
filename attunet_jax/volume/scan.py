"""A NIfTI file or the folder of a DICOM series in, one canonical `Volume` in HU out."""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom import read_dicom
from attunet_jax.volume.dicom_files import is_dicom
from attunet_jax.volume.nifti import read_image
from attunet_jax.volume.volume import Volume


def read_scan(
    path: str | Path, series: str | None = None, *, one_of: Collection[str] = ()
) -> Volume:
    """The scan at `path` in HU, `[D, H, W]`, int16 or float32.

    `series`: UID of the one meant in a DICOM folder, `one_of`: UIDs of which the one is
    meant that a folder with several series holds. Raises `BadData` as `read_image` and
    `read_dicom` do.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):  # even a folder named so
        if path.is_dir():
            return read_dicom(path, series, one_of)
        if path.is_file() and is_dicom(path):
            raise BadData(f"{path}: one file of a DICOM series; name its folder")
    return read_image(path)


def most_voxels(folder: Path) -> int:
    """The most that any series in the DICOM `folder` can have, by its first header."""
    from attunet_jax.volume.dicom import most_voxels

    return most_voxels(folder)
