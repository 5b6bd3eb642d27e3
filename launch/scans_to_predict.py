"""What `--input` of prediction means: a path in, the scans that lie there out."""

from pathlib import Path

from attunet_jax import volume as volumes
from attunet_jax.errors import BadData

ENDINGS = (".nii", ".nii.gz")


def find_scans(path: Path) -> dict[str, Path]:
    """What `--input` means: the name of each scan -> its file or DICOM folder, sorted.

    A DICOM series is named by the folder it lies in; in a folder of scans, by all
    folders on the way where there are several in one. Raises `BadData` if there is no
    scan, or two would have one name.
    """
    if not path.exists():
        raise BadData(f"{path}: no such file or folder")
    if path.is_file() or volumes.holds_dicom(path):
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
            series = volumes.dicom_folders(folder)
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
