"""A folder with `images/` and `labels/`, in which files of a case have equal names.

A scan may be the folder of a DICOM series instead of a NIfTI file, and a file may lie
in folders of its own: `images/anna/` and `labels/anna.nii.gz` are a case, and so are
`images/ben/ct.nii.gz` and `labels/ben/ct.nii.gz`, or `images/carl_0000.nii.gz` and
`labels/carl.nii.gz`. Without `labels/` all scans are for prediction.
"""

from collections.abc import Collection
from pathlib import Path

from attunet_jax.data.identity import files_below, series_folders
from attunet_jax.volume import SCAN_ENDINGS
from data_prep.sources.layout import (
    Layout,
    Named,
    paired,
    scans_by_name,
    without_channel,
)


def find_nifti(folder: Path) -> Layout:
    """The layout does not define label values: --labels does."""
    images = scans_by_name(folder / "images", SCAN_ENDINGS)
    labels: Named | None = None
    if (folder / "labels").is_dir():
        labels = scans_by_name(folder / "labels")
        for name, paths in _in_folders(folder / "labels", (), labels_too=True).items():
            labels[name] = (*labels.get(name, ()), *paths)
    expected = (labels or {}).keys() - images.keys()
    for name, paths in _in_folders(folder / "images", expected).items():
        images[name] = (*images.get(name, ()), *paths)
    if labels is not None:
        images = without_channel(images, labels)
    if labels is None:
        return Layout([], None, unlabelled=paired(images, {}))
    return Layout(paired(images, labels), organs=None)


def _in_folders(
    folder: Path, expected: Collection[str], *, labels_too: bool = False
) -> Named:
    """Files and DICOM series in folders below `folder`, by name.

    The only one below a folder is named by that folder, others by their path. A folder
    with several series is returned itself, and one with none where its name is
    `expected`, because a label map has it: reading such a folder reports why it cannot
    be used.
    """
    found: Named = {}
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.name.startswith("."):
            continue
        files = files_below(place, labels_too=labels_too)
        series = [] if labels_too else series_folders(place)
        if len(files) + len(series) == 1:
            found[place.name] = (*sum(files.values(), ()), *series)
        elif series or (not files and place.name in expected):
            found[place.name] = (place,)
        if len(files) > 1:
            found |= {f"{place.name}/{name}": paths for name, paths in files.items()}
    return found
