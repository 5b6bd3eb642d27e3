"""A folder with `images/` and `labels/` whose files have equal names.

A scan may be the folder of a DICOM series instead of a NIfTI file: `images/anna/` goes
with `labels/anna.nii.gz`. Without `labels/` all scans are for prediction.
"""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.volume import dicom_folders
from data_prep.sources.layout import Layout, paired, scans_by_name


def find_nifti(folder: Path) -> Layout:
    """What the labels mean is not written there: --labels says it."""
    images = scans_by_name(folder / "images")
    labels = None
    if (folder / "labels").is_dir():
        labels = scans_by_name(folder / "labels")
    meant = (labels or {}).keys() - images.keys()
    for name, series in _dicom_by_name(folder / "images", meant).items():
        images[name] = (*images.get(name, ()), series)
    if labels is None:
        return Layout([], None, unlabelled=paired(images, {}))
    return Layout(paired(images, labels), organs=None)


def _dicom_by_name(folder: Path, meant: Collection[str]) -> dict[str, Path]:
    """Folders with a DICOM series in them or below; with two, reading says so.

    So it does with none, for the names that are `meant`: a label map has no scan yet.
    """
    found = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith("."):
            if series := dicom_folders(place):
                found[place.name] = series[0] if len(series) == 1 else place
            elif place.name in meant:
                found[place.name] = place
    return found
