"""What a source finds: pairs of an image and its label map, and what labels mean."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from attunet_jax.data.records import CASE_ID
from attunet_jax.errors import BadArguments, BadData

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class ScanPair:
    """One case; a missing half is a reason to leave it out, not to stop.

    The image is a NIfTI file, or the folder of a DICOM series; `series` is the UID of
    the one meant where a folder holds several. The label map is one NIfTI file, or
    `masks`: a file an organ, each with the label value its voxels get. With
    `label_by_index` the label's header is not to be trusted: its voxels lie on those of
    the image, index by index, up to flips of axes (see `flips.py`). `other_labels` are
    values the layout knows: background, without being asked, where no organ has them.
    """

    case_id: str
    image: Path | None
    label: Path | None
    masks: tuple[tuple[Path, int], ...] = ()
    series: str | None = None
    label_by_index: bool = False
    other_labels: tuple[int, ...] = ()

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


def scans_by_name(folder: Path, endings: tuple[str, ...] = ENDINGS) -> dict[str, Path]:
    """Files of `folder` by their name without ending; hidden and `._` files are not
    scans. Raises `BadData` when the folder is not there or a name occurs twice."""
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in endings if path.name.endswith(e)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(ending)
        if name in found:
            raise BadData(f"{path}: there is also {found[name].name}; remove one")
        found[name] = path
    return found


def paired(images: dict[str, Path], labels: dict[str, Path]) -> list[ScanPair]:
    """All names of either side, each with what there is of it, sorted by case id.

    Raises `BadData` where two names make the same id.
    """
    ids = check_ids(images.keys() | labels.keys())
    return [
        ScanPair(case_id, images.get(name), labels.get(name))
        for case_id, name in sorted(ids.items())
    ]


def check_ids(names: Iterable[str]) -> dict[str, str]:
    """Case id -> name. Raises `BadData` where two names make the same id."""
    ids: dict[str, str] = {}
    for name in sorted(names):
        case_id = case_id_of(name)
        if case_id in ids:
            raise BadData(
                f"{name!r} and {ids[case_id]!r} would both be case {case_id}; rename "
                "one"
            )
        ids[case_id] = name
    return ids


def images_alone(folder: Path) -> list[ScanPair]:
    """The scans of a folder that has no labels by design; none where it is missing."""
    return paired(scans_by_name(folder), {}) if folder.is_dir() else []


def with_other_labels(pairs: list[ScanPair], known: Iterable[int]) -> list[ScanPair]:
    """The pairs, of a layout that has the label values `known`."""
    return [replace(pair, other_labels=tuple(known)) for pair in pairs]


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
