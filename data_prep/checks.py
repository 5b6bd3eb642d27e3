"""What makes a case unusable: its files or volumes in, the reason or None out.

`prepare` leaves a case out for the first reason, `verify` lists them all.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from attunet_jax.volume import Volume, same_geometry
from data_prep.sources.layout import ScanPair

# Image and label written by different tools differ by rounding, never by this much.
GEOMETRY_TOLERANCE_MM = 0.1


def missing_half(pair: ScanPair) -> str | None:
    """An image without its label map, or the other way round."""
    if pair.image is None:
        return f"{label_place(pair)}: a label map without an image of the same name"
    if not pair.labelled:
        return f"{pair.image}: an image without a label map of the same name"
    return None


def label_place(pair: ScanPair) -> Path | None:
    """The label map's file, or the folder of its masks."""
    return pair.masks[0][0].parent if pair.masks else pair.label


def different_grids(image: Volume, labels: Volume) -> str | None:
    """Voxels of equal index that do not lie at one place."""
    difference = same_geometry(image, labels, GEOMETRY_TOLERANCE_MM)
    if difference is None:
        return None
    name = image.path.rpartition("/")[2]
    return (
        f"{labels.path}: not on the grid of {name}: {difference}; "
        "export both from the same scan"
    )


def unnamed_labels(
    counts: Mapping[int, int], named: Collection[int], path: str
) -> str | None:
    """Label values of `counts` that no organ has."""
    unknown = [value for value in sorted(counts) if value and value not in named]
    if not unknown:
        return None
    shown = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:5])
    return (
        f"{path}: label values that --labels does not name: {shown}; name them or "
        "give --ignore_unknown_labels"
    )


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Label value -> voxels, of the values that occur in `labels` [D, H, W] uint."""
    # By slices: bincount makes integers of eight bytes of what it is given.
    counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for part in labels:
        counts += np.bincount(part.ravel(), minlength=len(counts))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
