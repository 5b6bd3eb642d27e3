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

from attunet_jax.data.label_names import named_values, shortened
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import read_json
from attunet_jax.volume import ENDINGS, split_ending

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
        raise BadData(f"{path}: no description of a data set, but {shortened(content)}")
    _check_channels(path, content)
    if "dataset" in content:
        raise BadData(
            f'{path}: "dataset" names the files of each case, which is not read; put '
            "them into imagesTr and labelsTr"
        )
    labels, ignored = named_values(path, content.get("labels"))
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
            raise BadData(
                f'{path}: "training" lists {shortened(entry)}, which is no scan'
            )
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
