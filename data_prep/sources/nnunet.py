"""nnU-Net's raw layout: dataset.json, imagesTr/X_0000.nii.gz, labelsTr/X.nii.gz."""

import json
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData
from data_prep.sources.layout import (
    ENDINGS,
    Layout,
    Named,
    as_identifier,
    paired,
    scans_by_name,
)


def find_nnunet(folder: Path) -> Layout:
    """Organs are those of dataset.json; None where its regions overlap, because a voxel
    has one label here. Raises `BadData`, or `BadArguments` for several channels."""
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
    if not (isinstance(channels, dict | list) and isinstance(labels, dict)):
        raise BadData(
            f"{path}: channel_names or labels is not a JSON object; correct it"
        )
    if len(channels) != 1:
        raise BadArguments(
            f"{path}: {len(channels)} channels; this network takes one (CT)"
        )
    if ending not in ENDINGS:
        raise BadArguments(f"{path}: file_ending {ending!r}; .nii.gz or .nii is read")
    organs = _organs(path, labels)
    used = [value for values in organs.values() for value in values]
    images = _first_channels(folder / "imagesTr", ending)
    test_images = folder / "imagesTs"
    return Layout(
        paired(images, scans_by_name(folder / "labelsTr", (ending,))),
        organs=organs if len(set(used)) == len(used) else None,
        unlabelled=paired(_first_channels(test_images, ending), {})
        if test_images.is_dir()
        else [],
    )


def _first_channels(folder: Path, ending: str) -> Named:
    return {
        name.removesuffix("_0000"): files
        for name, files in scans_by_name(folder, (ending,)).items()
        if name.endswith("_0000")
    }


def _organs(path: Path, labels: dict) -> dict[str, tuple[int, ...]]:
    organs: dict[str, tuple[int, ...]] = {}
    for name, value in labels.items():
        if name in ("background", "ignore"):
            continue
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(v) is int and v > 0 for v in values):
            raise BadData(
                f"{path}: label {name!r} has the value {value!r}; whole numbers above "
                "0 are read"
            )
        plain = as_identifier(name)
        if plain in organs:
            raise BadData(f"{path}: two labels would be named {plain}; rename one")
        organs[plain] = tuple(values)
    return organs
