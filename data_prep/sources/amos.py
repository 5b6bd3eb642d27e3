"""AMOS 2022: imagesTr with labelsTr, imagesVa with labelsVa, imagesTs without labels.

Training and validation cases form one pool, because `prepare` draws its own splits.
"""

import re
from pathlib import Path

from data_prep.sources.layout import (
    Layout,
    Named,
    images_alone,
    paired,
    scans_by_name,
    with_other_labels,
)

ORGANS = {"spleen": (1,), "pancreas": (10,), "kidney": (2, 3)}
# 4 gallbladder, 5 oesophagus, 6 liver, 7 stomach, 8 aorta, 9 inferior vena cava,
# 11 and 12 adrenal glands, 13 duodenum, 14 bladder, 15 prostate or uterus.
LABELS = range(1, 16)
LAST_CT = 500  # amos_0501 to amos_0600 are MRI
PARTS = ("Tr", "Va")


def find_amos(folder: Path) -> Layout:
    """Finds the CT scans; MRI is skipped. `folder` is amos22 or its parent."""
    if (folder / "amos22").is_dir():
        folder = folder / "amos22"
    images: Named = {}
    labels: Named = {}
    for part in PARTS:
        if part == PARTS[0] or (folder / f"images{part}").is_dir():
            for found, kind in ((images, "images"), (labels, "labels")):
                scans = scans_by_name(folder / f"{kind}{part}")
                for name, files in filter(lambda item: _is_ct(item[0]), scans.items()):
                    found[name] = (*found.get(name, ()), *files)
    unlabelled = images_alone(folder / "imagesTs")
    return Layout(
        with_other_labels(paired(images, labels), LABELS),
        ORGANS,
        [scan for scan in unlabelled if _is_ct(scan.case_id)],
    )


def _is_ct(name: str) -> bool:
    number = re.search(r"\d+$", name)
    return number is None or int(number[0]) <= LAST_CT
