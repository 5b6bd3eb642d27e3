"""BTCV ("Beyond the Cranial Vault", Synapse syn3193805): Training/img, Training/label.

`RawData/Training/img/img0001.nii.gz` goes with `label/label0001.nii.gz`;
`Testing/img` has no labels.
"""

from pathlib import Path

from data_prep.sources.layout import (
    Layout,
    images_alone,
    paired,
    scans_by_name,
    with_other_labels,
)

ORGANS = {"spleen": (1,), "pancreas": (11,), "kidney": (2, 3)}
# 4 gallbladder, 5 oesophagus, 6 liver, 7 stomach, 8 aorta, 9 inferior vena cava,
# 10 portal and splenic veins, 12 and 13 adrenal glands.
LABELS = range(1, 14)


def find_btcv(folder: Path) -> Layout:
    """`folder` is the parent of Training, of RawData or of Abdomen."""
    for inner in ("Abdomen", "RawData"):
        if (folder / inner).is_dir():
            folder = folder / inner
    training = folder / "Training"
    labels = {
        name.replace("label", "img", 1): path
        for name, path in scans_by_name(training / "label").items()
    }
    pairs = paired(scans_by_name(training / "img"), labels)
    return Layout(
        with_other_labels(pairs, LABELS),
        ORGANS,
        images_alone(folder / "Testing" / "img"),
    )
