"""Label maps in parts: a folder with a mask for each organ, as TotalSegmentator writes.

It is CASE/ORGAN.nii.gz in TotalSegmentator's output, CASE/segmentations/ORGAN.nii.gz
beside CASE/ct.nii.gz in its data set.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet_jax.data.structures import STRUCTURE_VALUES
from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, read_labels, same_geometry

if TYPE_CHECKING:
    from attunet_jax.evaluate.label_maps.find import LabelMapFile

_OF_A_CASE = "segmentations"
# The masks of one case are written by one program.
_TOLERANCE_MM = 0.01


def merged_masks(
    files: Sequence["LabelMapFile"],
) -> tuple[list["LabelMapFile"], dict[str, tuple[int, ...]]]:
    """Makes one label map of the files of each folder that holds masks of organs.

    That is a folder at least half of whose files have the names of structures of
    TotalSegmentator. A scan beside such a folder is no label map.

    Returns:
      The label maps, and the value of each organ: TotalSegmentator's, or one above
      them all. Empty where there are no masks.
    """
    by_folder: dict[str, list[LabelMapFile]] = {}
    for file in files:
        by_folder.setdefault(file.stem.rpartition("/")[0], []).append(file)
    of_masks = {
        folder: inside
        for folder, inside in by_folder.items()
        if 2 * sum(_organ(f) in STRUCTURE_VALUES for f in inside) >= len(inside)
    }
    if not of_masks:
        return list(files), {}
    names = {_organ(file) for inside in of_masks.values() for file in inside}
    values = {name: STRUCTURE_VALUES[name] for name in names & STRUCTURE_VALUES.keys()}
    for name in sorted(names - STRUCTURE_VALUES.keys()):
        values[name] = max(*values.values(), len(STRUCTURE_VALUES)) + 1
    result, scans = [], set()
    for folder, inside in of_masks.items():
        place = inside[0].path.parent
        case = folder
        if folder.rpartition("/")[2].lower() == _OF_A_CASE:
            case = folder.rpartition("/")[0]
            scans.add(case)
            place = place.parent
        case = case or place.name
        masks = tuple((file.path, values[_organ(file)]) for file in inside)
        first = inside[0]
        result.append(replace(first, identity=case, stem=case, path=place, masks=masks))
    for folder, inside in by_folder.items():
        if folder not in of_masks and folder not in scans:
            result += inside
    result.sort(key=lambda file: file.identity)
    ordered = sorted(values.items(), key=lambda item: item[1])
    return result, {name: (value,) for name, value in ordered}


def read_masks(masks: Sequence[tuple[Path, int]], wanted: set[int]) -> Volume:
    """Reads the masks with the values of `wanted` into one label map, uint16.

    Raises `BadData` where one is missing, they lie on several grids, or two overlap.
    """
    folder = masks[0][0].parent
    if missing := wanted - {value for _, value in masks}:
        names = {value: name for name, value in STRUCTURE_VALUES.items()}
        shown = ", ".join(names.get(v, f"value {v}") for v in sorted(missing))
        raise BadData(
            f"{folder}: has no mask of {shown}; add its file, or leave it out of "
            "--labels"
        )
    merged: Volume | None = None
    for path, value in masks:
        if value not in wanted:
            continue
        mask = read_labels(path)
        inside = mask.voxels != 0
        if merged is None:
            merged = replace(mask, voxels=np.zeros(mask.voxels.shape, np.uint16))
        if difference := same_geometry(merged, mask, _TOLERANCE_MM):
            raise BadData(f"{path}: not on the grid of {merged.path}: {difference}")
        if merged.voxels[inside].any():
            raise BadData(
                f"{path}: overlaps the mask of another organ, but a voxel belongs to "
                "one organ; correct the masks, or leave the organ out of --labels"
            )
        merged.voxels[inside] = value
    if merged is None:
        raise BadData(f"{folder}: has no mask of an organ that is scored")
    return replace(merged, path=str(folder))


def _organ(file: "LabelMapFile") -> str:
    return file.stem.rpartition("/")[2]
