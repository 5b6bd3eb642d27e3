"""The one table of file endings: which are scans, and what other files are called."""

import re

# What 3D Slicer calls label maps; they are never scans.
SEGMENTATION = ".seg.nrrd"
ITK_ENDINGS = (SEGMENTATION, ".nrrd", ".mha")  # read by SimpleITK, an extra
# Read by this package, whatever their letter case; longer ones stand first.
ENDINGS = (".nii.gz", ".nii", *ITK_ENDINGS)
SCAN_ENDINGS = tuple(ending for ending in ENDINGS if ending != SEGMENTATION)
# Files that say they are DICOM; most DICOM files have no ending.
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".z")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
_ARCHIVES += tuple(f".tar{ending}" for ending in _COMPRESSED)
_OTHER_SCANS = (".nhdr", ".mhd", ".hdr", ".img", ".mgz", ".mnc")
_NUMBERED = re.compile(r"\.nii ?\(\d+\)\.gz|\.nii(\.gz)? ?\(\d+\)")
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}")


def split_ending(
    name: str, endings: tuple[str, ...] = ENDINGS
) -> tuple[str, str | None]:
    """Splits a file's name into its stem and its ending, as the name writes it.

    The ending is None, and the stem the whole name, where it is none of `endings` or
    where nothing stands before it.
    """
    for ending in endings:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], name[-len(ending) :]
    return name, None


def is_packed(name: str) -> bool:
    """Returns whether a file is an archive or compressed, by its name."""
    packed = name.lower().endswith((*_ARCHIVES, *_COMPRESSED))
    return packed and split_ending(name)[1] is None


def kind_of_name(name: str) -> str:
    """Says what a file that is no scan is, as in "3 packed archives (.zip)"."""
    if name.startswith("._"):
        return "resource forks of macOS (._*)"
    if name.startswith("."):
        return "hidden files"
    lower = name.lower()
    if split_ending(name, DICOM_ENDINGS)[1]:
        return "files named as DICOM that are none"
    if lower == "dicomdir":
        return "DICOMDIR"
    if (match := _NUMBERED.search(lower)) and match.end() == len(lower):
        return "copies with a broken ending (.nii (1).gz; rename them)"
    for ending in _ARCHIVES:
        if lower.endswith(ending):
            return f"packed archives ({ending}; unpack them)"
    for ending in _COMPRESSED:
        if lower.endswith(ending):
            inner = _SUFFIX.findall(lower.removesuffix(ending))
            shown = (inner[-1] if inner else "") + ending
            return f"compressed files ({shown}; unpack them)"
    for ending in _OTHER_SCANS:
        if lower.endswith(ending):
            return f"{ending} files (convert scans to NIfTI)"
    last = "." + lower.rpartition(".")[2] if "." in lower else ""
    return f"{last} files" if _SUFFIX.fullmatch(last) else "files without ending"
