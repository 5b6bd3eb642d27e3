"""A NIfTI file or the folder of a DICOM series in, one canonical `Volume` in HU out.

What `--input` of prediction means: a path in, the scans that lie there out.
"""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom.files import dicom_folders, holds_dicom, is_dicom
from attunet_jax.volume.dicom.read import read_dicom
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
    from attunet_jax.volume.dicom.read import most_voxels

    return most_voxels(folder)


ENDINGS = (".nii", ".nii.gz")


def find_scans(path: Path) -> dict[str, Path]:
    """What `--input` means: the name of each scan -> its file or DICOM folder, sorted.

    A DICOM series is named by the folder it lies in; in a folder of scans, by all
    folders on the way where there are several in one. Raises `BadData` if there is no
    scan, or two would have one name.
    """
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
