"""Finds DICOM files by their first bytes, and the folders that hold some."""

import os
from pathlib import Path

from attunet_jax.errors import BadData

_NAMED_ENDINGS = (".dcm", ".ima", ".dicom")  # files that say they are DICOM
_PREAMBLE = 128


def holds_dicom(folder: Path) -> bool:
    """Returns whether a folder has DICOM files directly in it."""
    return any(is_dicom(path) for path in _files(folder))


def dicom_folders(root: Path) -> list[Path]:
    """Returns folders with DICOM files, from `root` down; links are not followed."""
    return sorted(
        Path(place) for place, _, _ in os.walk(root) if holds_dicom(Path(place))
    )


def dicom_files(folder: Path) -> list[Path]:
    """Returns a folder's DICOM files by name. Raises `BadData` if it is unreadable."""
    return [path for path in _files(folder) if is_dicom(path)]


def is_dicom(path: Path) -> bool:
    """Returns whether a file is DICOM by its content or by its name.

    By the name a damaged file counts too, and so does one that cannot be opened: the
    reader of the series reports it.
    """
    if path.suffix.lower() in _NAMED_ENDINGS:
        return True
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return False
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return True


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".")
            and path.name.upper() != "DICOMDIR"
            and path.is_file()
        )
    except OSError as error:
        raise BadData(
            f"{folder}: cannot be read ({error.strerror}); name the folder of a series"
        ) from error
