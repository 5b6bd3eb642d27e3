"""nnU-Net's raw layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE..."""

import json
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData
from data_prep.sources.layout import ENDINGS, Layout, paired, scans_by_name


def find_nnunet(folder: Path) -> Layout:
    """Organs are those of dataset.json. Raises `BadData`, or `BadArguments` for
    more than one channel."""
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        channels = description["channel_names"]
        labels = description["labels"]
        ending = description.get("file_ending", ".nii.gz")
    except FileNotFoundError:
        raise BadData(f"{path}: missing; is this an nnU-Net raw folder?") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{path}: no nnU-Net description ({error!r})") from None
    if len(channels) != 1:
        raise BadArguments(
            f"{path}: {len(channels)} channels; this network takes one (CT)"
        )
    if ending not in ENDINGS:
        raise BadArguments(f"{path}: file_ending {ending!r}; .nii.gz or .nii is read")
    organs = {}
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) for v in values):
            raise BadData(f"{path}: label {name!r} has the value {value!r}")
        if name not in ("background", "ignore"):
            organs[name.replace(" ", "_").replace("-", "_")] = tuple(values)
    images = {
        name.removesuffix("_0000"): file
        for name, file in scans_by_name(folder / "imagesTr", (ending,)).items()
        if name.endswith("_0000")
    }
    return Layout(
        paired(images, scans_by_name(folder / "labelsTr", (ending,))), organs=organs
    )
