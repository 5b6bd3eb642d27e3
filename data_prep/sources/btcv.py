"""BTCV ("Beyond the Cranial Vault", Synapse syn3193805), as it comes and as MONAI's.

As it comes, `RawData/Training/img/img0001.nii.gz` goes with `label/label0001.nii.gz`;
`Testing/img` has no labels. MONAI's tutorials have `imagesTr/img0001.nii.gz` and
`labelsTr/label0001.nii.gz` beside dataset_0.json, and `imagesTs`.
"""

from pathlib import Path

from data_prep.sources.layout import (
    Layout,
    Named,
    images_alone,
    paired,
    scans_by_name,
    with_other_labels,
)

ORGANS = {"spleen": (1,), "pancreas": (11,), "kidney": (2, 3)}
# 4 gallbladder, 5 oesophagus, 6 liver, 7 stomach, 8 aorta, 9 inferior vena cava,
# 10 portal and splenic veins, 12 and 13 adrenal glands.
LABELS = range(1, 14)
# Folders of scans, label maps and scans without, in MONAI's layout.
MONAI = ("imagesTr", "labelsTr", "imagesTs")


def find_btcv(folder: Path) -> Layout:
    """`folder` is the parent of Training, of RawData or of Abdomen, or MONAI's."""
    for inner in ("Abdomen", "RawData", "data"):
        if (folder / inner).is_dir():
            folder = folder / inner
    training = folder / "Training"
    images, truths, alone = training / "img", training / "label", folder / "Testing/img"
    if not training.is_dir() and (folder / MONAI[0]).is_dir():
        images, truths, alone = (folder / name for name in MONAI)
    labels: Named = {}
    for name, files in scans_by_name(truths).items():
        key = name.replace("label", "img", 1)
        labels[key] = (*labels.get(key, ()), *files)
    pairs = paired(scans_by_name(images), labels)
    return Layout(with_other_labels(pairs, LABELS), ORGANS, images_alone(alone))
