"""Finds DICOM files by their first bytes, and the folders that hold some."""

import os
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.volume.endings import DICOM_ENDINGS, split_ending

_PREAMBLE = 128
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


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
    """Returns whether a file is DICOM by its content, or by its name and not another.

    By the name a damaged file counts too, and so does one that cannot be opened: the
    reader of the series reports it. A text or a picture named .dcm does not.
    """
    if split_ending(path.name)[1]:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError:
        return True
    if head[_PREAMBLE:] == b"DICM":
        return True
    if not split_ending(path.name, DICOM_ENDINGS)[1]:
        return False
    # Cut or blank, or without the preamble: then it begins with group 2 or 8.
    short = len(head) < _PREAMBLE + 4
    return short or not head.strip(b"\0") or head[:2] in _FIRST_GROUPS


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
