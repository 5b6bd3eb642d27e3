"""A task of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr.

File names are equal in both folders; imagesTs has no labels. Images that nnU-Net has
renamed (`X_0000.nii.gz`) are found as well.
"""

from pathlib import Path

from data_prep.sources.dataset_json import read_description
from data_prep.sources.layout import (
    Layout,
    images_alone,
    paired,
    scans_by_name,
    with_listed,
    with_other_labels,
    without_channel,
)

TUMOURS = ("cancer", "tumour", "tumor")


def find_msd(folder: Path) -> Layout:
    """Organs are those of dataset.json; a tumour counts as part of the pancreas.

    --labels=pancreas=1,tumour=2 keeps the two apart. A case that dataset.json lists
    without its files is returned as well, so that reading it reports them. Raises
    `BadData`, or `BadArguments` where the images are not CT.
    """
    description = read_description(folder, "a task of the Decathlon")
    truths = scans_by_name(folder / "labelsTr")
    images = without_channel(scans_by_name(folder / "imagesTr"), truths)
    with_listed(images, folder / "imagesTr", description.listed)
    with_listed(truths, folder / "labelsTr", description.listed)
    return Layout(
        with_other_labels(paired(images, truths), description.ignored),
        None if description.overlap else _with_tumours(description.labels),
        images_alone(folder / "imagesTs"),
        ignored=description.ignored,
        no_organs=description.overlap,
    )


def _with_tumours(labels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    organs: dict[str, tuple[int, ...]] = {}
    for name, values in labels.items():
        if name.lower() in TUMOURS and "pancreas" in organs:
            name = "pancreas"
        organs[name] = (*organs.get(name, ()), *values)
    return organs
