"""TotalSegmentator's data set: CASE/ct.nii.gz with CASE/segmentations/ORGAN.nii.gz.

Instead of the folder of masks there may be one label map of any name next to the scan.
"""

from dataclasses import replace
from pathlib import Path

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

# Label values of version 2, which the masks get as well.
ORGANS = {"spleen": (1,), "pancreas": (7,), "kidney": (2, 3)}
STRUCTURES = (
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach"),
    *("pancreas", "adrenal_gland_right", "adrenal_gland_left"),
    *("lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right"),
    *("lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea"),
    *("thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder"),
    *("prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum"),
    *(f"vertebrae_{name}" for name in ("S1", "L5", "L4", "L3", "L2", "L1")),
    *(f"vertebrae_T{number}" for number in range(12, 0, -1)),
    *(f"vertebrae_C{number}" for number in range(7, 0, -1)),
    *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk"),
    *("subclavian_artery_right", "subclavian_artery_left"),
    *("common_carotid_artery_right", "common_carotid_artery_left"),
    *("brachiocephalic_vein_left", "brachiocephalic_vein_right"),
    *("atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava"),
    *("portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right"),
    *("iliac_vena_left", "iliac_vena_right", "humerus_left", "humerus_right"),
    *("scapula_left", "scapula_right", "clavicula_left", "clavicula_right"),
    *("femur_left", "femur_right", "hip_left", "hip_right", "spinal_cord"),
    *("gluteus_maximus_left", "gluteus_maximus_right", "gluteus_medius_left"),
    *("gluteus_medius_right", "gluteus_minimus_left", "gluteus_minimus_right"),
    *("autochthon_left", "autochthon_right", "iliopsoas_left", "iliopsoas_right"),
    *("brain", "skull"),
    *(f"rib_left_{number}" for number in range(1, 13)),
    *(f"rib_right_{number}" for number in range(1, 13)),
    *("sternum", "costal_cartilages"),
)
_VALUES = {name: value for value, name in enumerate(STRUCTURES, start=1)}
_LABELS = tuple(_VALUES.values())


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
            _VALUES[structure]: paths
            for structure, paths in scans_by_name(folder).items()
            if structure in _VALUES
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
