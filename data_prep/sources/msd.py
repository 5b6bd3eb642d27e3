"""A task of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr.

File names are equal in both folders, without channel numbers; imagesTs has no labels.
"""

import json
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.volume import split_ending
from data_prep.sources.layout import (
    Layout,
    as_identifier,
    images_alone,
    paired,
    scans_by_name,
)

TUMOURS = ("cancer", "tumour", "tumor")


def find_msd(folder: Path) -> Layout:
    """Organs are those of dataset.json; a tumour counts as part of the pancreas.

    --labels=pancreas=1,tumour=2 keeps the two apart. A case that dataset.json lists
    without its files is returned as well, so that reading it reports them. Raises
    `BadData`, or `BadArguments` where the images are not CT.
    """
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        modalities = list(description["modality"].values())
        labels = {int(value): str(n) for value, n in description["labels"].items()}
        listed = [_listed(entry) for entry in description["training"]]
    except FileNotFoundError:
        raise BadData(f"{path}: missing; is this a task of the Decathlon?") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{path}: no description of the Decathlon ({error!r})") from None
    if modalities != ["CT"]:
        shown = ", ".join(map(str, modalities))
        raise BadArguments(f"{path}: the images are {shown}; this network takes CT")
    images = scans_by_name(folder / "imagesTr")
    truths = scans_by_name(folder / "labelsTr")
    for name, file in listed:
        images.setdefault(name, (folder / "imagesTr" / file,))
        truths.setdefault(name, (folder / "labelsTr" / file,))
    return Layout(
        paired(images, truths), _organs(labels), images_alone(folder / "imagesTs")
    )


def _listed(entry: dict[str, Any]) -> tuple[str, str]:
    """(name, file name) of a case, of whose path only the last part is used."""
    file = PurePosixPath(str(entry["image"])).name
    name = unicodedata.normalize("NFC", split_ending(file)[0])
    if not name or file.startswith("."):
        raise ValueError(f"training entry {entry}")
    return name, file


def _organs(labels: dict[int, str]) -> dict[str, tuple[int, ...]]:
    organs: dict[str, tuple[int, ...]] = {}
    for value, name in sorted(labels.items()):
        plain = as_identifier(name)
        if value == 0 or plain == "background":
            continue
        if plain in TUMOURS and "pancreas" in organs:
            plain = "pancreas"
        organs[plain] = (*organs.get(plain, ()), value)
    return organs
