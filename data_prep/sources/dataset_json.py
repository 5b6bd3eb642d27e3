"""Reads dataset.json: of the Decathlon, of both nnU-Nets, and what people make of it.

The first nnU-Net took the Decathlon's form: "modality", and labels as {"1": "spleen"}.
The second has "channel_names", and labels as {"spleen": 1}, or lists of values for
regions. Values may be text, and the file may begin with a byte order mark.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import read_json
from attunet_jax.volume import ENDINGS, split_ending
from data_prep.sources.layout import IGNORE, as_identifier

# Names that people give to channels which are no CT.
_NOT_CT = {"adc", "dwi", "flair", "mr", "mri", "pet", "pt", "rgb", "us", "ultrasound"}
_NOT_CT |= {"t1", "t1c", "t1ce", "t1gd", "t1w", "t2", "t2w", "r", "g", "b"}


@dataclass(frozen=True)
class Description:
    """What dataset.json says of the label values and files of its folder.

    `labels` are organ -> label values, without background; regions may share values,
    see `overlap`. `ignored` are values of voxels that nobody has labelled. `listed` are
    names and file names of the training cases, where the file lists them.
    """

    path: Path
    labels: dict[str, tuple[int, ...]]
    ignored: tuple[int, ...]
    ending: str | None
    listed: list[tuple[str, str]]

    @property
    def overlap(self) -> str | None:
        """Says so where two organs share a label value, with the --labels to give."""
        used: dict[int, str] = {}
        for name, values in self.labels.items():
            for value in values:
                if value in used:
                    return (
                        f"{self.path}: {used[value]} and {name} overlap (both have "
                        f"value {value}), but a voxel has one label here; this makes "
                        f"classes of their parts: --labels={_parts(self.labels)}"
                    )
                used[value] = name
        return None


def read_description(folder: Path, kind: str) -> Description:
    """Reads `folder`/dataset.json; `kind` says in messages what the folder should be.

    Raises `BadData` naming what cannot be read, and `BadArguments` where the images are
    not of one channel, or not CT.
    """
    path = folder / "dataset.json"
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise BadData(f"{path}: missing; is this {kind}?") from None
    if not isinstance(content, dict):
        raise BadData(f"{path}: no description of a data set, but {_short(content)}")
    _check_channels(path, content)
    if "dataset" in content:
        raise BadData(
            f'{path}: "dataset" names the files of each case, which is not read; put '
            "them into imagesTr and labelsTr"
        )
    labels, ignored = _labels(path, content.get("labels"))
    ending = content.get("file_ending")
    if ending is not None and ending not in ENDINGS:
        raise BadArguments(
            f"{path}: file_ending {ending!r}; read are {', '.join(ENDINGS)}"
        )
    return Description(
        path, labels, ignored, ending, _listed(path, content.get("training"))
    )


def _check_channels(path: Path, content: Mapping[str, Any]) -> None:
    channels = content.get("channel_names", content.get("modality"))
    if isinstance(channels, Mapping):
        channels = list(channels.values())
    if isinstance(channels, str):
        channels = [channels]
    if not isinstance(channels, list) or not channels:
        raise BadData(
            f'{path}: neither "channel_names" nor "modality" says what the images '
            'are; add "channel_names": {"0": "CT"}'
        )
    shown = ", ".join(map(str, channels))
    if len(channels) > 1:
        raise BadArguments(
            f"{path}: {len(channels)} channels ({shown}); this network takes one (CT)"
        )
    words = set(re.findall(r"[a-z0-9]+", shown.lower()))
    if words & _NOT_CT or ("modality" in content and "ct" not in shown.lower()):
        raise BadArguments(f"{path}: the images are {shown}; this network takes CT")


def _labels(
    path: Path, labels: Any
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Returns organ -> label values, and the values to ignore."""
    if not isinstance(labels, Mapping) or not labels:
        raise BadData(f'{path}: "labels" is {_short(labels)}, not names and values')
    organs: dict[str, tuple[int, ...]] = {}
    for name, value in _by_name(path, labels):
        values = tuple(_whole(v) for v in (value if type(value) is list else [value]))
        if name.strip().lower() == "background":
            if values != (0,):
                raise BadData(f"{path}: background is {value!r}, but must be 0")
            continue
        if not values or None in values or min(values) < 1:  # pyright: ignore
            raise BadData(
                f"{path}: label {name!r} has the value {_short(value)}; whole numbers "
                "above 0 are read"
            )
        plain = as_identifier(name)
        if plain in organs:
            raise BadData(f"{path}: two labels would be named {plain}; rename one")
        organs[plain] = tuple(dict.fromkeys(values))  # pyright: ignore
    ignored = organs.pop(IGNORE, ())
    if not organs:
        raise BadData(f'{path}: "labels" names no organ, only {_short(labels)}')
    return organs, ignored


def _by_name(path: Path, labels: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(name, value) of each label, whichever of the two the file has in front."""
    in_front = all(_whole(key) is not None for key in labels)
    if not in_front:
        return [(str(name), value) for name, value in labels.items()]
    if any(not isinstance(v, str) or _whole(v) is not None for v in labels.values()):
        raise BadData(
            f'{path}: "labels" is {_short(labels)}: which are names, which values?'
        )
    return [(name, key) for key, name in sorted(labels.items(), key=_value_in_front)]


def _value_in_front(item: tuple[str, Any]) -> int:
    return int(item[0])


def _whole(value: Any) -> int | None:
    """The whole number that a value of JSON is, also as text; None where it is none."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdigit() else None
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _listed(path: Path, training: Any) -> list[tuple[str, str]]:
    """(name, file name) of cases, of whose paths only the last part is used."""
    if training is None:
        return []
    found = []
    for entry in training if isinstance(training, list) else [training]:
        image = entry.get("image") if isinstance(entry, Mapping) else entry
        file = PurePosixPath(image).name if isinstance(image, str) else ""
        name = unicodedata.normalize("NFC", split_ending(file)[0])
        if not name or file.startswith("."):
            raise BadData(f'{path}: "training" lists {_short(entry)}, which is no scan')
        found.append((name, file))
    return found


def _parts(regions: Mapping[str, tuple[int, ...]]) -> str:
    """The --labels that makes a class of each set of values in the same regions.

    A part is named by the smallest regions it lies in; what is left of a region without
    its smaller ones is its "rest".
    """
    inside: dict[frozenset[str], list[int]] = {}
    for value in sorted({v for values in regions.values() for v in values}):
        holders = frozenset(name for name in regions if value in regions[name])
        inside.setdefault(holders, []).append(value)
    named: dict[str, list[int]] = {}
    for holders, values in inside.items():
        smallest = [
            name
            for name in regions
            if name in holders
            and not any(set(regions[o]) < set(regions[name]) for o in holders)
        ]
        name = "_and_".join(smallest)
        if len(smallest) == 1 and set(values) < set(regions[name]):
            name += "_rest"
        while name in named:
            name += "_"
        named[name] = values
    return ",".join(f"{name}={'+'.join(map(str, v))}" for name, v in named.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
