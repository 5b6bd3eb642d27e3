"""What a source finds: pairs of an image and its label map, and what labels mean."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attunet_jax.data.records import CASE_ID
from attunet_jax.errors import BadArguments, BadData

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class ScanPair:
    """One case; a missing half is a reason to leave it out, not to stop.

    The image is a NIfTI file, or the folder of a DICOM series; of several in one folder
    that one is meant whose UID is in `series`. The label map is one NIfTI file, or
    `masks`: a file an organ, each with the label value its voxels get. With
    `label_by_index` the label's header is not to be trusted: its voxels lie on those of
    the image, index by index, up to flips of axes (see `flips.py`). `other_labels` are
    values the layout knows: background, without being asked, where no organ has them.
    `unclear` says why it cannot be told which of `rivals` are meant: such a case has
    neither image nor label, and is left out for that reason.
    """

    case_id: str
    image: Path | None
    label: Path | None
    masks: tuple[tuple[Path, int], ...] = ()
    series: tuple[str, ...] = ()
    label_by_index: bool = False
    other_labels: tuple[int, ...] = ()
    unclear: str | None = None
    rivals: tuple[Path, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.label is not None or bool(self.masks)


@dataclass(frozen=True)
class Layout:
    """What a folder holds. `organs` is None where the layout does not say.

    `unlabelled` are scans that have no label map by design, as those of test sets:
    for prediction, never prepared. An image of `pairs` without its label is a mistake.
    """

    pairs: list[ScanPair]
    organs: dict[str, tuple[int, ...]] | None
    unlabelled: list[ScanPair] = field(default_factory=list)


# Files by the name of their case; a name with several files is one nobody can use.
Named = dict[str, tuple[Path, ...]]


def scans_by_name(folder: Path, endings: tuple[str, ...] = ENDINGS) -> Named:
    """Files of `folder` by their name without ending; hidden and `._` files are not
    scans. Raises `BadData` when the folder is not there."""
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    found: Named = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in endings if path.name.endswith(e)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(ending)
        found[name] = (*found.get(name, ()), path)
    return found


def paired(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Sequence[Path]]
) -> list[ScanPair]:
    """All names of either side, each with what there is of it, sorted by case id.

    A name of several files, and names that make one id, are one case that is unclear.
    """
    by_id: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images.keys() | labels.keys()):
        by_id[case_id_of(name)].append(name)
    return [
        _named_twice(case_id, names, images, labels)
        if len(names) > 1
        else one_pair(case_id, images.get(names[0], ()), labels.get(names[0], ()))
        for case_id, names in sorted(by_id.items())
    ]


def one_pair(case_id: str, images: Sequence[Path], labels: Sequence[Path]) -> ScanPair:
    """The case of the files found for it: unclear where one half is there twice."""
    for first, *others in filter(None, (images, labels)):
        if others:
            shown = first.name if first.name != others[0].name else first
            reason = f"{others[0]}: there is also {shown}; remove one"
            return unclear_case(case_id, reason, [*images, *labels])
    return ScanPair(
        case_id, images[0] if images else None, labels[0] if labels else None
    )


def unclear_case(case_id: str, reason: str, rivals: Iterable[Path]) -> ScanPair:
    """A case that has too many files to be used, and why."""
    return ScanPair(case_id, None, None, unclear=reason, rivals=tuple(rivals))


def _named_twice(
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


def images_alone(folder: Path) -> list[ScanPair]:
    """The scans of a folder that has no labels by design; none where it is missing."""
    return paired(scans_by_name(folder), {}) if folder.is_dir() else []


def with_other_labels(pairs: list[ScanPair], known: Iterable[int]) -> list[ScanPair]:
    """The pairs, of a layout that has the label values `known`."""
    return [replace(pair, other_labels=tuple(known)) for pair in pairs]


def with_series(pairs: Iterable[ScanPair], text: str | None) -> list[ScanPair]:
    """The pairs, with the UIDs of `text`, "UID,UID", for those that are DICOM."""
    uids = tuple(filter(None, (text or "").split(",")))
    return [
        replace(pair, series=uids)
        if uids and pair.image and pair.image.is_dir()
        else pair
        for pair in pairs
    ]


def case_id_of(name: str) -> str:
    """A file's name as a case id: what an id may not hold becomes "_".

    Spaces and letters beyond ASCII are common in file names of scans, and an id is
    the name of files on other machines too.
    """
    plain = "".join(
        c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name
    )
    return plain if CASE_ID.fullmatch(plain) else f"case{plain}"


def as_identifier(name: str) -> str:
    """A label's name as --labels and the record of a data set have it."""
    return name.strip().replace(" ", "_").replace("-", "_")


def parse_organs(text: str) -> dict[str, tuple[int, ...]]:
    """`spleen=1,pancreas=7,kidney=2+3` to organ -> label values in the files.

    Raises `BadArguments` saying what is wrong with which part.
    """
    organs: dict[str, tuple[int, ...]] = {}
    used: dict[int, str] = {}
    for part in text.split(","):
        name, _, values = part.strip().partition("=")
        try:
            numbers = tuple(int(v) for v in values.split("+"))
        except ValueError:
            numbers = ()
        if not name.isidentifier() or not numbers or min(numbers) < 1:
            raise BadArguments(
                f"--labels: {part.strip()!r} is not NAME=VALUE or NAME=VALUE+VALUE "
                "with whole values above 0"
            )
        if name in organs or name == "background":
            raise BadArguments(f"--labels: {name!r} cannot be named (again)")
        for number in numbers:
            if number in used:
                raise BadArguments(
                    f"--labels: value {number} is both {used[number]} and {name}"
                )
            used[number] = name
        organs[name] = numbers
    return organs
