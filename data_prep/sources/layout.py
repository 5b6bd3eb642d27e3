"""What a source returns: pairs of an image and a label map, and the label values."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attunet_jax.data.case_id import case_id_of
from attunet_jax.data.identity import counted, unused_files
from attunet_jax.data.label_names import IGNORE, parse_organs
from attunet_jax.errors import BadData
from attunet_jax.volume import ENDINGS, SCAN_ENDINGS, split_ending


@dataclass(frozen=True)
class ScanPair:
    """One case. Where a half is missing, the case is left out and the others continue.

    The image is a NIfTI file or the folder of a DICOM series; of several series in one
    folder, the one whose UID is in `series`. The label map is one NIfTI file, or
    `masks`: one file for each organ, with the label value of its voxels. With
    `label_by_index` the header of the label map is wrong: its voxels correspond to
    those of the image by index, up to flips of axes (see `align.py`). `other_labels`
    are values of the layout that count as background where no organ has them.
    `unclear` says why it is unknown which of the files `candidates` are to be used:
    such a case has neither image nor label map, and is left out for this reason.
    """

    case_id: str
    image: Path | None
    label: Path | None
    masks: tuple[tuple[Path, int], ...] = ()
    series: tuple[str, ...] = ()
    label_by_index: bool = False
    other_labels: tuple[int, ...] = ()
    unclear: str | None = None
    candidates: tuple[Path, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.label is not None or bool(self.masks)


@dataclass(frozen=True)
class Layout:
    """The cases of a folder, and organ -> label values in its files.

    `organs` is None where the layout does not define them. `unlabelled` are scans that
    have no label map by design, such as those of test sets: they are never prepared. An
    image of `pairs` without a label map is a mistake. Voxels with a value in `ignored`
    are left out of loss and metrics. `no_organs` says why a layout that names label
    values has no `organs`.
    """

    pairs: list[ScanPair]
    organs: dict[str, tuple[int, ...]] | None
    unlabelled: list[ScanPair] = field(default_factory=list)
    ignored: tuple[int, ...] = ()
    no_organs: str | None = None

    def chosen(
        self, labels: str | None
    ) -> tuple[dict[str, tuple[int, ...]] | None, tuple[int, ...]]:
        """Returns (organs, ignored values), those of the flag --labels before its own.

        Raises `BadArguments` where the flag cannot be read.
        """
        organs = parse_organs(labels) if labels else dict(self.organs or {})
        ignored = organs.pop(IGNORE, self.ignored)
        used = {value for values in organs.values() for value in values}
        return organs or None, tuple(v for v in ignored if v not in used)


def not_used(folder: Path, layout: Layout, *others: Path) -> str:
    """Counts by kind the files below `folder` that are of no case; "" for none.

    `others` are files and folders that do not count, such as the output.
    """
    used = {*others}
    for pair in (*layout.pairs, *layout.unlabelled):
        used |= {path for path in (pair.image, pair.label) if path is not None}
        used |= {path for path, _ in pair.masks} | {*pair.candidates}
    return counted(unused_files(folder, used))


# Files by the name of their case. A case with several files of a kind is unclear.
Named = dict[str, tuple[Path, ...]]


def scans_by_name(folder: Path, endings: tuple[str, ...] = ENDINGS) -> Named:
    """Files of `folder` by their names without the ending; hidden files are skipped.

    Letter case of the ending does not matter, nor whether letters are composed. Raises
    `BadData` where the folder does not exist.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    found: Named = {}
    for path in sorted(folder.iterdir()):
        stem, ending = split_ending(path.name, endings)
        if ending is None or path.name.startswith("."):
            continue
        name = unicodedata.normalize("NFC", stem)
        found[name] = (*found.get(name, ()), path)
    return found


def paired(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Sequence[Path]]
) -> list[ScanPair]:
    """The cases of all names on either side, sorted by case id.

    A name with several files, or several names with one case id, make an unclear case.
    """
    by_id: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images.keys() | labels.keys()):
        by_id[case_id_of(name)].append(name)
    return [
        _same_id(case_id, names, images, labels)
        if len(names) > 1
        else one_pair(case_id, images.get(names[0], ()), labels.get(names[0], ()))
        for case_id, names in sorted(by_id.items())
    ]


def one_pair(case_id: str, images: Sequence[Path], labels: Sequence[Path]) -> ScanPair:
    """The case of the files found for it: unclear where one half exists twice."""
    for first, *others in filter(None, (images, labels)):
        if others:
            shown = first.name if first.name != others[0].name else first
            reason = f"{others[0]}: there is also {shown}; remove one"
            return unclear_case(case_id, reason, [*images, *labels])
    return ScanPair(
        case_id, images[0] if images else None, labels[0] if labels else None
    )


def unclear_case(case_id: str, reason: str, candidates: Iterable[Path]) -> ScanPair:
    """A case that cannot be used because it has more files than one case can have."""
    return ScanPair(case_id, None, None, unclear=reason, candidates=tuple(candidates))


def _same_id(
    case_id: str,
    names: Sequence[str],
    images: Mapping[str, Sequence[Path]],
    labels: Mapping[str, Sequence[Path]],
) -> ScanPair:
    files = [p for n in names for p in (*images.get(n, ()), *labels.get(n, ()))]
    reason = (
        f"{files[0].parent}: {names[0]!r} and {names[1]!r} would both be case "
        f"{case_id}; rename one"
    )
    return unclear_case(case_id, reason, files)


def without_channel(images: Named, labels: Mapping[str, Sequence[Path]]) -> Named:
    """The images, with the names of their label maps where these lack a "_0000".

    So nnU-Net names the first channel of an image. A name that is taken stays.
    """
    found: Named = {}
    for name, files in images.items():
        plain = name.removesuffix("_0000")
        renamed = name not in labels and plain in labels
        key = plain if renamed else name
        found[key] = (*found.get(key, ()), *files)
    return found


def with_listed(
    found: Named, folder: Path, listed: Iterable[tuple[str, str]], channel: str = ""
) -> None:
    """Adds the (name, file name) of cases that are `listed` and not found.

    `channel` stands in the files' names before the ending.
    """
    for name, file in listed:
        ending = file[len(name) :]
        found.setdefault(name, (folder / f"{name}{channel}{ending}",))


def case_folders(folder: Path, image: str) -> dict[Path, list[Path]]:
    """The folders of cases in `folder`, with the files that are their `image`.

    Empty where there are none, or no such folder.
    """
    if not folder.is_dir():
        return {}
    return {
        place: files
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
        if (files := list(scans_by_name(place, SCAN_ENDINGS).get(image, ())))
    }


def images_alone(folder: Path) -> list[ScanPair]:
    """The scans of a folder without labels by design; none where it is missing."""
    return paired(scans_by_name(folder), {}) if folder.is_dir() else []


def with_other_labels(pairs: list[ScanPair], known: Iterable[int]) -> list[ScanPair]:
    """The pairs, with the label values `known` among their `other_labels`."""
    more = tuple(known)
    return [
        replace(pair, other_labels=tuple(dict.fromkeys((*pair.other_labels, *more))))
        for pair in pairs
    ]


def with_series(pairs: Iterable[ScanPair], text: str | None) -> list[ScanPair]:
    """The pairs; those that are DICOM get the UIDs of `text`, "UID,UID"."""
    uids = tuple(filter(None, (text or "").split(",")))
    return [
        replace(pair, series=uids)
        if uids and pair.image and pair.image.is_dir()
        else pair
        for pair in pairs
    ]
