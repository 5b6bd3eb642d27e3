"""KiTS (2019, 2021, 2023): case_00000/imaging.nii.gz with segmentation.nii.gz.

Cases of the test sets have no segmentation. Other segmentations of a case, such as
those of single readers, lie in a folder of it or have other names; they are not read.
"""

from pathlib import Path

from attunet_jax.errors import BadData
from data_prep.sources.layout import (
    Layout,
    case_folders,
    one_pair,
    scans_by_name,
    with_other_labels,
)

# A tumour or cyst counts as part of the kidney that has it.
ORGANS = {"kidney": (1, 2, 3)}
LABELS = (1, 2, 3)  # kidney, tumour, cyst (from 2021 on)
INNER = ("data", "dataset")
IMAGE = "imaging"
# The first that a case has: 2021 had a majority of its readers' beside it.
SEGMENTATIONS = ("segmentation", "aggregated_MAJ_seg")


def find_kits(folder: Path) -> Layout:
    """Finds the cases in `folder`, or in its folder data or dataset.

    --labels=kidney=1,tumour=2,cyst=3 keeps tumours and cysts apart. Raises `BadData`
    for a missing folder.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    for inner in INNER:
        if not case_folders(folder, IMAGE) and case_folders(folder / inner, IMAGE):
            folder = folder / inner
    pairs = []
    for place, images in case_folders(folder, IMAGE).items():
        named = scans_by_name(place)
        found = [named.get(name, ()) for name in SEGMENTATIONS]
        pairs.append(one_pair(place.name, images, next(filter(None, found), ())))
    return Layout(
        with_other_labels([p for p in pairs if p.labelled or p.unclear], LABELS),
        ORGANS,
        [p for p in pairs if not (p.labelled or p.unclear)],
    )
