"""Finds and reads scans: NIfTI files, and folders of DICOM series."""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom.files import dicom_folders, holds_dicom, is_dicom
from attunet_jax.volume.dicom.read import read_dicom
from attunet_jax.volume.nifti import read_image
from attunet_jax.volume.volume import Volume

ENDINGS = (".nii", ".nii.gz")


def read_scan(
    path: str | Path, series: str | None = None, *, one_of: Collection[str] = ()
) -> Volume:
    """Reads the scan at `path` in HU, `[D, H, W]`, int16 or float32.

    In a DICOM folder with several series, `series` is the UID of the one to read, or
    the folder holds exactly one of the UIDs in `one_of`. Raises `BadData` as
    `read_image` and `read_dicom` do.
    """
    path = Path(path)
    if not path.name.lower().endswith(ENDINGS):  # even a folder of that name
        if path.is_dir():
            return read_dicom(path, series, one_of)
        if path.is_file() and is_dicom(path):
            raise BadData(f"{path}: one file of a DICOM series; name its folder")
    return read_image(path)


def find_scans(path: str | Path) -> dict[str, Path]:
    """Returns the name of each scan at `path` -> its file or DICOM folder, sorted.

    A scan is named by its file, a DICOM series by its folder; where one subfolder of
    `path` holds several series, by all folders on the way. Raises `BadData` if there is
    no scan, or if two scans have the same name.
    """
    path = Path(path)
    if not path.exists():
        raise BadData(f"{path}: no such file or folder")
    if path.is_file() or holds_dicom(path):
        return {_stem(path.resolve() if path.is_dir() else path): path}
    found = [
        (_stem(file), file)
        for file in path.iterdir()
        if file.name.endswith(ENDINGS)
        and not file.name.startswith(".")
        and not file.is_dir()
    ]
    for folder in path.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            series = dicom_folders(folder)
            for place in series:
                parts = place.relative_to(path).parts if len(series) > 1 else ()
                found.append(("_".join(parts) or folder.name, place))
    if not found:
        raise BadData(f"{path}: no .nii, .nii.gz or DICOM files in this folder")
    scans: dict[str, Path] = {}
    for name, scan in sorted(found):
        if name in scans:
            raise BadData(f"{scan}: would be named as {scans[name]} is; rename one")
        scans[name] = scan
    return scans


def _stem(scan: Path) -> str:
    return scan.name.removesuffix(".gz").removesuffix(".nii")
