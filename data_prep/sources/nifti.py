"""A folder with `images/` and `labels/`, in which files of a case have equal names.

A scan may be the folder of a DICOM series instead of a NIfTI file: `images/anna/` and
`labels/anna.nii.gz` are a case. Without `labels/` all scans are for prediction.
"""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.volume import dicom_folders
from data_prep.sources.layout import Layout, paired, scans_by_name


def find_nifti(folder: Path) -> Layout:
    """The layout does not define label values: --labels does."""
    images = scans_by_name(folder / "images")
    labels = None
    if (folder / "labels").is_dir():
        labels = scans_by_name(folder / "labels")
    expected = (labels or {}).keys() - images.keys()
    for name, series in _dicom_by_name(folder / "images", expected).items():
        images[name] = (*images.get(name, ()), series)
    if labels is None:
        return Layout([], None, unlabelled=paired(images, {}))
    return Layout(paired(images, labels), organs=None)


def _dicom_by_name(folder: Path, expected: Collection[str]) -> dict[str, Path]:
    """Folders with one DICOM series in them or below, by name.

    A folder with several series is returned as well, and one with none where its name
    is `expected`, because a label map has it: reading such a folder reports why it
    cannot be used.
    """
    found = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith("."):
            if series := dicom_folders(place):
                found[place.name] = series[0] if len(series) == 1 else place
            elif place.name in expected:
                found[place.name] = place
    return found
