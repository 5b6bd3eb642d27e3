"""A folder with `images/` and `labels/` whose files have equal names."""

from pathlib import Path

from data_prep.sources.layout import Layout, paired, scans_by_name


def find_nifti(folder: Path) -> Layout:
    """What the labels mean is not written there: --labels says it."""
    images = scans_by_name(folder / "images")
    labels = scans_by_name(folder / "labels")
    return Layout(paired(images, labels), organs=None)
