"""Who is who: which files and folders are scans, and how a scan is named.

Every program asks here, so that what one finds and how it names it is what the others
find and name. What was seen and is no scan is counted by kind, never dropped silently.
"""

import filecmp
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attunet_jax.data.attention_names import is_attention_name
from attunet_jax.errors import BadData, one_line
from attunet_jax.volume.dicom.contents import contents, matching
from attunet_jax.volume.dicom.files import dicom_files, is_dicom
from attunet_jax.volume.endings import (
    SEGMENTATION,
    is_packed,
    kind_of_name,
    split_ending,
)

# Folders and files of label maps in the layouts of data sets: no scans to predict. The
# name of a file counts only where the input has a scan with another one.
LABEL_FOLDERS = re.compile(
    r"(labels?(tr|ts|va)?|segmentations?|masks?|annotations?|instances|gt)(_.*)?",
    re.IGNORECASE,
)
LABEL_NAMES = re.compile(
    r"(.*[^a-z])?(labels?|seg|segmentations?|masks?)([^a-z].*)?|.+[^a-z]gt",
    re.IGNORECASE,
)
# What file managers, browsers and people add to the name of a copy.
_COPY = re.compile(
    r"(.+?)(?:[ _]?\(\d+\)|[ _-]+copy(?:[ _]?\(?\d+\)?)?)", re.IGNORECASE
)
# The first channel of nnU-Net's files; a scan that has a second one keeps its number.
_CHANNEL = re.compile(r"(.+)_(\d{4})")
PREDICTION_FORMAT = "attunet_jax.prediction"
# Files of a layout that describe its cases.
_DESCRIPTIONS = {"dataset.json", "labels.json"}


@dataclass(frozen=True)
class FoundScan:
    """A scan below an input.

    `identity` is its path below the input without ending, with "/" between folders; it
    is unique among the scans of the input. `path` is a file, or the folder of DICOM
    files; of several scans in it, `series` names this one. `files` are what it is read
    from.
    """

    identity: str
    path: Path
    files: tuple[Path, ...]
    series: str | None = None


@dataclass
class Found:
    """The scans of an input in the order of their identities.

    `unused` counts by kind what is there besides. `notes` has a line for each folder
    with several scans, whose names it lists. `refused` has a line for each scan
    whose identity another one has too, and for each folder that cannot be read.
    """

    scans: list[FoundScan] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_scans(
    root: Path,
    *,
    skip: Collection[Path] = (),
    labels_too: bool = False,
    series: str | None = None,
) -> Found:
    """Finds the scans at `root`: one file, or all files and DICOM folders below it.

    Letter case of endings and depth do not matter; links are followed. Hidden files and
    those of `skip` (files or folders) are no scans, nor are label maps that their
    folder or name tells, unless `labels_too`. `series` names one of several scans in a
    DICOM folder. Raises `BadData` where `root` is missing.
    """
    if not root.exists():
        raise BadData(f"{root}: no such file or folder")
    found = Found()
    if root.is_file():
        if is_packed(root.name):
            raise BadData(f"{root}: is packed; unpack it and name what it holds")
        found.scans.append(FoundScan(scan_name(root.name), root, (root,)))
        return found
    skipped = {path.resolve() for path in skip}
    scans: list[FoundScan] = []
    for folder, names in _walk(root, skipped, found.unused, found.refused):
        below = folder.relative_to(root)
        if not labels_too and any(map(LABEL_FOLDERS.fullmatch, below.parts)):
            kind = f"files in folders of label maps ({below.parts[-1]})"
            found.unused[kind] += len(names)
            continue
        files, is_series = _of_folder(folder, names, labels_too, found.unused)
        for name, path in files:
            scans.append(FoundScan(_joined(*below.parts, name), path, (path,)))
        if is_series:
            identity = _joined(*(below.parts or (root.resolve().name,)))
            scans += _of_dicom(folder, identity, series, found)
    if not labels_too:
        others = [scan for scan in scans if not _is_label_name(scan.path)]
        if 0 < len(others) < len(scans):  # else nothing says which is a scan
            found.unused["label maps by their names"] += len(scans) - len(others)
            scans = others
    by_identity: dict[str, list[FoundScan]] = {}
    for scan in scans:
        by_identity.setdefault(scan.identity, []).append(scan)
    for _, (first, *others) in sorted(by_identity.items()):
        if others:
            shown = ", ".join(str(other.path) for other in others)
            line = f"{first.path}: has the same name as {shown}; rename or remove one"
            found.refused.append(line)
        else:
            found.scans.append(first)
    return found


def _of_dicom(
    folder: Path, identity: str, series: str | None, found: Found
) -> list[FoundScan]:
    """The scans of a DICOM folder; of a damaged one too, which reading it reports."""
    unread = [FoundScan(identity, folder, tuple(dicom_files(folder)), series)]
    try:
        inside = contents(folder)
    except BadData:
        return unread
    found.unused.update(inside.passed_over)
    names = dict(zip(map(id, inside.scans), inside.names(), strict=True))
    chosen = inside.scans if series is None else matching(inside, series)
    if inside.scans and not chosen:
        return unread
    if len(inside.scans) > 1 and series is None:
        told_by = sorted({scan.told_by for scan in inside.scans} - {""})
        way = f", told apart by {', '.join(told_by)}" if told_by else ""
        found.notes.append(
            f"{folder}: {len(names)} scans{way}: {', '.join(names.values())} "
            "(--series=NAME takes one)"
        )
    return [
        FoundScan(
            f"{identity}_{names[id(scan)]}" if names[id(scan)] else identity,
            folder,
            tuple(header.path for header in scan.headers) or unread[0].files,
            scan.key if names[id(scan)] else None,
        )
        for scan in chosen
    ]


def files_below(folder: Path, *, labels_too: bool) -> dict[str, tuple[Path, ...]]:
    """Returns identity -> the files of scans below `folder` that have it."""
    found: dict[str, tuple[Path, ...]] = {}
    for place, names in _walk(folder, set(), Counter(), []):
        for name, path in _of_folder(place, names, labels_too, Counter())[0]:
            identity = _joined(*place.relative_to(folder).parts, name)
            found[identity] = (*found.get(identity, ()), path)
    scans = {n: paths for n, paths in found.items() if not _is_label_name(paths[0])}
    return found if labels_too or not scans else scans


def series_folders(folder: Path) -> list[Path]:
    """Returns the DICOM folders below `folder` that hold a scan.

    Where there is only one folder, it is returned unread: reading it reports what it
    holds instead.
    """
    places = [
        place
        for place, names in _walk(folder, set(), Counter(), [])
        if any(_is_dicom(place / name) for name in names)
    ]
    if len(places) < 2:
        return places
    return [place for place in places if _holds_scan(place)] or places


def _holds_scan(folder: Path) -> bool:
    try:
        return bool(contents(folder).scans)
    except BadData:
        return True  # reading it reports what is wrong


def scan_name(file: str) -> str:
    """Returns the name of a scan for its file's: NFC, without ending and `_0000`.

    Whether `_0000` is the number of a channel or of a scan is known only among all
    files of a folder: see `without_channels`.
    """
    name = unicodedata.normalize("NFC", split_ending(file)[0])
    return next(iter(without_channels([name]).values()))


def without_channels(names: Iterable[str]) -> dict[str, str]:
    """Returns each name of a folder -> the same without nnU-Net's channel `_0000`.

    Names with `_0000` and `_0001` count scans, or channels that are scans of their own,
    and keep their numbers; so does one whose short form is another's name.
    """
    names = list(names)
    numbers = Counter(match[1] for n in names if (match := _CHANNEL.fullmatch(n)))
    result = {}
    for name in names:
        match = _CHANNEL.fullmatch(name)
        alone = match and match[2] == "0000" and numbers[match[1]] == 1
        result[name] = match[1] if match and alone and match[1] not in names else name
    return result


def unused_files(root: Path, used: Iterable[Path]) -> Counter[str]:
    """Counts by kind the files below `root` that are not among `used`.

    `used` are files, and folders of which all is used.
    """
    unused: Counter[str] = Counter()
    taken = {path.absolute() for path in used}
    for folder, names in _walk(root, set(), unused, []):
        if taken.intersection((folder.absolute(), *folder.absolute().parents)):
            continue
        for name in names:
            path = folder / name
            if path.absolute() in taken or name in _DESCRIPTIONS:
                continue
            ending = split_ending(name)[1]
            if ending and not name.startswith("."):
                unused[f"{ending.lower()} files of no case"] += 1
            elif _is_dicom(path):
                unused["DICOM files of no case"] += 1
            else:
                unused[kind_of_name(name)] += 1
    return unused


def record_of(label_map: Path) -> Path:
    """Returns the path of the record of what made a label map: NAME.json beside it."""
    return label_map.with_name(f"{split_ending(label_map.name)[0]}.json")


def is_prediction(path: Path) -> bool:
    """Returns whether NAME.json beside a file says that `launch.predict` made it."""
    try:
        content = json.loads(record_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(content, dict)
        and content.get("format") == PREDICTION_FORMAT
        and content.get("label_map") == path.name
    )


def counted(kinds: Counter[str]) -> str:
    """Returns the counts in one line: "2 hidden files, 1 .txt files"."""
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))


def _joined(*parts: str) -> str:
    return unicodedata.normalize("NFC", "/".join(parts))


def _walk(
    root: Path, skipped: Collection[Path], unused: Counter[str], unread: list[str]
) -> Iterator[tuple[Path, list[str]]]:
    """Yields folders with the names of their files, sorted, from `root` down.

    A link to a folder that is found without it is counted in `unused` instead; a folder
    that cannot be read gets a line in `unread`.
    """
    whole = root.resolve()

    def say(error: OSError) -> None:
        reason = error.strerror or one_line(error)
        unread.append(f"{error.filename}: cannot be read ({reason})")

    def is_known(folder: Path) -> bool:
        """Whether a link leads into the input, around it, or where one led before."""
        if not folder.is_symlink():
            return False
        target = folder.resolve()
        if whole.is_relative_to(target) or target.is_relative_to(whole):
            return True
        known = any(target.is_relative_to(path) for path in followed)
        followed.append(target)
        return known

    followed: list[Path] = []
    for place, folders, names in os.walk(root, followlinks=True, onerror=say):
        folder = Path(place)
        if skipped:
            folders[:] = [f for f in folders if (folder / f).resolve() not in skipped]
            names = [n for n in names if (folder / n).resolve() not in skipped]
        entered = []
        for name in sorted(folders):
            if name.startswith((".", "__MACOSX")):
                unused["hidden folders"] += 1
            elif is_known(folder / name):
                unused["links to folders of the input"] += 1
            else:
                entered.append(name)
        folders[:] = entered
        yield folder, sorted(names)


def _of_folder(
    folder: Path, names: Iterable[str], labels_too: bool, unused: Counter[str]
) -> tuple[list[tuple[str, Path]], bool]:
    """Returns (name, file) of a folder's scans, and whether it has DICOM files."""
    files: dict[str, Path] = {}
    is_series = False
    for name in names:
        path = folder / name
        if split_ending(name)[1] and not name.startswith("."):
            files[name] = path
        elif _is_dicom(path):
            is_series = True
        else:
            unused[kind_of_name(name)] += 1
    for name in [name for name in files if _is_copy(files[name], files)]:
        del files[name]
        unused["copies of scans, of the same bytes"] += 1
    for name in [name for name in files if is_attention_name(name)]:
        del files[name]
        unused["attention coefficients (launch.predict --attention)"] += 1
    if not labels_too:
        for name, kind in _label_maps(files).items():
            del files[name]
            unused[kind] += 1
    stems = {
        name: unicodedata.normalize("NFC", split_ending(name)[0]) for name in files
    }
    short = without_channels(set(stems.values()))
    return [(short[stems[name]], path) for name, path in files.items()], is_series


def _is_dicom(path: Path) -> bool:
    hidden = path.name.startswith(".") or path.name.upper() == "DICOMDIR"
    return not hidden and path.is_file() and is_dicom(path)


def _is_copy(path: Path, files: Collection[str]) -> bool:
    """Whether a file is named as a copy of one beside it and has the same bytes."""
    stem, ending = split_ending(path.name)
    match = _COPY.fullmatch(stem)
    if not match or f"{match[1]}{ending}" not in files:
        return False
    try:
        return filecmp.cmp(path, path.with_name(f"{match[1]}{ending}"), shallow=False)
    except OSError:
        return False


def _label_maps(files: dict[str, Path]) -> dict[str, str]:
    """Returns the files whose record or ending says that they are label maps."""
    found = {
        name: "label maps made by launch.predict"
        for name, path in files.items()
        if is_prediction(path)
    }
    return found | {
        name: "label maps of 3D Slicer (.seg.nrrd)"
        for name in files
        if name.lower().endswith(SEGMENTATION)
    }


def _is_label_name(path: Path) -> bool:
    stem, ending = split_ending(path.name)
    return ending is not None and LABEL_NAMES.fullmatch(stem) is not None
