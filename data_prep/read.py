"""Reads the files of a case, whatever their kind, and checks that they can be used.

`prepare` leaves a case out for the first reason found here, `verify` lists them all.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from attunet_jax.data.segments import ENDING, of_slicer
from attunet_jax.errors import BadData
from attunet_jax.volume import (
    Volume,
    dicom_contents,
    on_image,
    read_labels,
    read_scan,
    same_geometry,
)
from data_prep.align import align_to_image
from data_prep.sources.layout import ScanPair
from data_prep.wording import listed

# The masks of one case are written by one program.
MASK_TOLERANCE_MM = 0.01


def pair_files(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None = None
) -> list[Path]:
    """All files of a case that exist, in a fixed order: for fingerprints.

    With `organs`, of its masks only those that `read_pair` would read.
    """
    return [*image_files(pair), *label_files(pair, organs)]


def image_files(pair: ScanPair) -> list[Path]:
    """The files of the scan: for a DICOM series all files in its folder."""
    if pair.image is None:
        return []
    if pair.image.is_dir():
        return sorted(path for path in pair.image.iterdir() if path.is_file())
    return [pair.image] if pair.image.exists() else []


def passed_over(pair: ScanPair) -> dict[str, int]:
    """Counts by kind what lies among the slices of a DICOM series and is none."""
    if pair.image is None or not pair.image.is_dir():
        return {}
    return dict(sorted(dicom_contents(pair.image).passed_over.items()))


def label_files(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None = None
) -> list[Path]:
    """The file of the label map, or the masks: all, or those of `organs`."""
    paths = [pair.label] if pair.label else [path for path, _ in _masks(pair, organs)]
    return [path for path in paths if path.exists()]


def label_place(pair: ScanPair) -> Path | None:
    """The file of the label map, or the folder of the masks."""
    return pair.masks[0][0].parent if pair.masks else pair.label


def missing_half(pair: ScanPair) -> str | None:
    """Says so where a case has an image without a label map, or the reverse."""
    if pair.image is None:
        return f"{label_place(pair)}: a label map without an image of the same name"
    if not pair.labelled:
        return f"{pair.image}: an image without a label map of the same name"
    return None


def read_pair(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]]
) -> tuple[Volume, Volume | None]:
    """Returns the image in HU, and the label map with the values of its files, or None.

    Both are canonical `[D, H, W]`; the label map is uint8 or uint16. Of several masks
    those are read whose values `organs` names. Image and label map are not compared.
    Raises `BadData` naming the file.
    """
    if pair.image is None:
        raise BadData(f"{pair.label}: a label map without an image of the same name")
    image = read_scan(pair.image, one_of=pair.series)
    if pair.masks:
        return image, on_image(_read_masks(pair, organs), image)
    if pair.label is None:
        return image, None
    labels = read_labels(pair.label)
    if pair.label.name.lower().endswith(ENDING):
        labels = of_slicer(labels, image, organs)
    if pair.label_by_index:
        return image, align_to_image(labels, image)
    return image, on_image(labels, image)


def _masks(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]] | None
) -> list[tuple[Path, int]]:
    if organs is None:
        return list(pair.masks)
    requested = {value for values in organs.values() for value in values}
    return [(path, value) for path, value in pair.masks if value in requested]


def _read_masks(pair: ScanPair, organs: Mapping[str, tuple[int, ...]]) -> Volume:
    """Merges masks of single organs into one label map.

    Raises `BadData` where a mask is missing or two organs overlap.
    """
    masks = _masks(pair, organs)
    available = {value for _, value in masks}
    for organ, values in organs.items():
        if missing := [value for value in values if value not in available]:
            raise BadData(
                f"{pair.masks[0][0].parent}: no mask of {organ} (label value "
                f"{missing[0]}); add its file or leave the organ out of --labels"
            )
    organ_of = {value: organ for organ, values in organs.items() for value in values}
    merged: Volume | None = None
    for path, value in masks:
        mask = read_labels(path)
        inside = mask.voxels != 0
        if merged is None:
            dtype = np.uint8 if max(available) <= 255 else np.uint16
            merged = replace(mask, voxels=np.zeros(mask.voxels.shape, dtype))
        if difference := same_geometry(merged, mask, MASK_TOLERANCE_MM):
            raise BadData(f"{path}: not on the grid of {merged.path}: {difference}")
        for other in np.unique(merged.voxels[inside]).tolist():
            if other and organ_of[other] != organ_of[value]:
                raise BadData(
                    f"{path}: overlaps the mask of {organ_of[other]}, but a voxel "
                    "belongs to one organ; correct the masks"
                )
        merged.voxels[inside] = value
    assert merged is not None
    return merged


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Number of voxels of each value that occurs in `labels` `[D, H, W]`."""
    # Slice by slice: np.bincount converts its input to 8-byte integers.
    counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for part in labels:
        counts += np.bincount(part.ravel(), minlength=len(counts))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def unnamed_labels(
    counts: Mapping[int, int], named: Collection[int], path: str
) -> str | None:
    """Says so where `counts` has label values that are neither 0 nor in `named`."""
    unknown = [value for value in sorted(counts) if value and value not in named]
    if not unknown:
        return None
    shown = listed([f"{value} ({counts[value]} voxels)" for value in unknown])
    return (
        f"{path}: label values that --labels does not name: {shown}; name them or "
        "give --ignore_unknown_labels"
    )
