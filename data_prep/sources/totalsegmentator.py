"""TotalSegmentator's data set: CASE/ct.nii.gz with CASE/segmentations/ORGAN.nii.gz.

Instead of the folder of masks there may be one label map of any name next to the scan.
"""

from dataclasses import replace
from pathlib import Path

from attunet_jax.data.structures import STRUCTURE_VALUES
from attunet_jax.errors import BadData
from data_prep.sources.layout import (
    Layout,
    ScanPair,
    case_folders,
    paired,
    scans_by_name,
    unclear_case,
    with_other_labels,
)

# In the values of version 2, which the masks get as well.
ORGANS = {"spleen": (1,), "pancreas": (7,), "kidney": (2, 3)}
_LABELS = tuple(STRUCTURE_VALUES.values())


def find_totalsegmentator(folder: Path) -> Layout:
    """Cases are the folders with a ct.nii.gz. Raises `BadData` for a missing folder."""
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    cases = {place.name: files for place, files in case_folders(folder, "ct").items()}
    pairs = [_labelled(pair) for pair in paired(cases, {})]
    return Layout(with_other_labels(pairs, _LABELS), ORGANS)


def _labelled(pair: ScanPair) -> ScanPair:
    """Adds the masks, or the label map, in the folder of the scan."""
    if pair.image is None:
        return pair
    folder = pair.image.parent / "segmentations"
    if folder.is_dir():
        masks = {
            STRUCTURE_VALUES[structure]: paths
            for structure, paths in scans_by_name(folder).items()
            if structure in STRUCTURE_VALUES
        }
        for first, *others in masks.values():
            if others:
                reason = f"{others[0]}: there is also {first.name}; remove one"
                return unclear_case(pair.case_id, reason, [pair.image, first, *others])
        return replace(
            pair, masks=tuple((paths[0], value) for value, paths in masks.items())
        )
    named = scans_by_name(pair.image.parent)
    others = [path for name, paths in named.items() if name != "ct" for path in paths]
    if len(others) > 1:
        reason = (
            f"{pair.image.parent}: {others[0].name} and {others[1].name}: which is the "
            "label map? leave one next to ct.nii.gz"
        )
        return unclear_case(pair.case_id, reason, [pair.image, *others])
    return replace(pair, label=others[0] if others else None)
