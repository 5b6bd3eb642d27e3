"""One case's files in, whatever their kind; its image and label map, canonical, out.

What makes a case unusable: its files or volumes in, the reason or None out.

`prepare` leaves a case out for the first reason, `verify` lists them all.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, read_labels, read_scan, same_geometry
from data_prep.align import laid_on_image
from data_prep.sources.layout import ScanPair

# Masks of one case are written by one program: what is apart by more is another scan.
MASK_TOLERANCE_MM = 0.01


def read_pair(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]]
) -> tuple[Volume, Volume | None]:
    """(image in HU, label map with the files' own values, None where there is none).

    Both canonical `[D, H, W]`; the label map is uint8 or uint16. Of `pair.masks` those
    are read whose values `organs` names. Image and label are not compared. Raises
    `BadData` naming the file.
    """
    if pair.image is None:
        raise BadData(f"{pair.label}: a label map without an image of the same name")
    image = read_scan(pair.image, one_of=pair.series)
    if pair.masks:
        return image, _read_masks(pair, organs)
    if pair.label is None:
        return image, None
    labels = read_labels(pair.label)
    return image, laid_on_image(labels, image) if pair.label_by_index else labels


def pair_files(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None = None
) -> list[Path]:
    """All files of a case that are there, in a fixed order: for fingerprints.

    With `organs`, of its masks only those that `read_pair` would read.
    """
    return [*image_files(pair), *label_files(pair, organs)]


def image_files(pair: ScanPair) -> list[Path]:
    """The scan's files: all in the folder for a DICOM series."""
    if pair.image is None:
        return []
    if pair.image.is_dir():
        return sorted(path for path in pair.image.iterdir() if path.is_file())
    return [pair.image] if pair.image.exists() else []


def label_files(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None = None
) -> list[Path]:
    """The label map's file, or the masks, all or those whose values `organs` names."""
    paths = [pair.label] if pair.label else [path for path, _ in _masks(pair, organs)]
    return [path for path in paths if path.exists()]


def _masks(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None
) -> list[tuple[Path, int]]:
    if organs is None:
        return list(pair.masks)
    wanted = {value for values in organs.values() for value in values}
    return [(path, value) for path, value in pair.masks if value in wanted]


def _read_masks(pair: ScanPair, organs: Mapping[str, tuple[int, ...]]) -> Volume:
    """One label map of a file an organ; refuses voxels that two organs claim."""
    masks = _masks(pair, organs)
    there = {value for _, value in masks}
    for organ, values in organs.items():
        if missing := [value for value in values if value not in there]:
            raise BadData(
                f"{pair.masks[0][0].parent}: no mask of {organ} (label value "
                f"{missing[0]}); add its file or leave the organ out of --labels"
            )
    organ_of = {value: organ for organ, values in organs.items() for value in values}
    whole: Volume | None = None
    for path, value in masks:
        mask = read_labels(path)
        inside = mask.voxels != 0
        if whole is None:
            dtype = np.uint8 if max(there) <= 255 else np.uint16
            whole = replace(mask, voxels=np.zeros(mask.voxels.shape, dtype))
        if difference := same_geometry(whole, mask, MASK_TOLERANCE_MM):
            raise BadData(f"{path}: not on the grid of {whole.path}: {difference}")
        for other in np.unique(whole.voxels[inside]).tolist():
            if other and organ_of[other] != organ_of[value]:
                raise BadData(
                    f"{path}: overlaps the mask of {organ_of[other]}; a voxel has one "
                    "organ here: mend the masks"
                )
        whole.voxels[inside] = value
    assert whole is not None
    return whole


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
