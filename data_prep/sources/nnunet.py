"""nnU-Net's raw layout: dataset.json, imagesTr/X_0000.nii.gz, labelsTr/X.nii.gz."""

from pathlib import Path

from attunet_jax.volume import ENDINGS
from data_prep.sources.dataset_json import read_description
from data_prep.sources.layout import (
    Layout,
    Named,
    paired,
    scans_by_name,
    with_listed,
    with_other_labels,
)


def find_nnunet(folder: Path) -> Layout:
    """Organs are those of dataset.json, of either nnU-Net; None where its regions
    overlap, because a voxel has one label here.

    A case that the first nnU-Net's dataset.json lists without its files is returned as
    well, so that reading it reports them. Raises `BadData`, or `BadArguments` for
    several channels.
    """
    description = read_description(folder, "an nnU-Net raw folder")
    endings = (description.ending,) if description.ending else ENDINGS
    images = _first_channels(folder / "imagesTr", endings)
    labels = scans_by_name(folder / "labelsTr", endings)
    with_listed(images, folder / "imagesTr", description.listed, "_0000")
    with_listed(labels, folder / "labelsTr", description.listed)
    test_images = folder / "imagesTs"
    return Layout(
        with_other_labels(paired(images, labels), description.ignored),
        organs=None if description.overlap else description.labels,
        unlabelled=paired(_first_channels(test_images, endings), {})
        if test_images.is_dir()
        else [],
        ignored=description.ignored,
        no_organs=description.overlap,
    )


def _first_channels(folder: Path, endings: tuple[str, ...]) -> Named:
    return {
        name.removesuffix("_0000"): files
        for name, files in scans_by_name(folder, endings).items()
        if name.endswith("_0000")
    }
