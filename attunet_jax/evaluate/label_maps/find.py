"""Finds the label maps of two folders that are of one scan, by their names."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attunet_jax.data.case_id import case_id_of
from attunet_jax.data.identity import Found, find_scans
from attunet_jax.data.segments import names_of_segments
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.label_maps.masks import merged_masks
from attunet_jax.volume import SEGMENTATION, split_ending

_NAMED = 3  # of files, in a message


@dataclass(frozen=True)
class LabelMapFile:
    """The label map of one scan below a folder.

    `identity` is its path there as `find_scans` names it, `stem` the same as its file
    is written. `path` is the file, or the folder of `masks`: (file, value) of one organ
    each.
    """

    identity: str
    stem: str
    path: Path
    masks: tuple[tuple[Path, int], ...] = ()

    @property
    def files(self) -> list[Path]:
        """What it is read from."""
        return [path for path, _ in self.masks] or [self.path]

    @property
    def of_slicer(self) -> bool:
        """Whether 3D Slicer wrote it, which cuts label maps to what is labelled."""
        return self.path.name.lower().endswith(SEGMENTATION)


@dataclass(frozen=True)
class Pair:
    """The truth and the prediction of one scan."""

    case_id: str
    truth: LabelMapFile
    prediction: LabelMapFile


@dataclass
class Pairs:
    """What two folders have in common, and what they do not.

    `refused` has a line for each file whose name another one has too. `unused` counts
    by kind what is in the prediction's folder besides, as in `Found`.
    """

    pairs: list[Pair] = field(default_factory=list)
    without_prediction: list[LabelMapFile] = field(default_factory=list)
    without_truth: list[LabelMapFile] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    mask_names: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)


def find_label_maps(
    place: Path, skip: Collection[Path] = ()
) -> tuple[list[LabelMapFile], Found, dict[str, tuple[int, ...]]]:
    """Finds the label maps at `place`: one file, or all files below a folder.

    Folders of masks of single organs, as TotalSegmentator writes them, are one label
    map each; the last result has the value of each organ there, or of each segment that
    3D Slicer names, and is empty without either. Raises `BadData` where there is no
    label map.
    """
    found = find_scans(place, skip=skip, labels_too=True)
    files = []
    for scan in found.scans:
        if scan.path.is_dir():
            found.unused["DICOM series"] += 1
            continue
        stem = split_ending(scan.path.name)[0]
        folder = scan.identity.rpartition("/")[0]
        files.append(
            LabelMapFile(
                scan.identity, f"{folder}/{stem}" if folder else stem, scan.path
            )
        )
    files, names = merged_masks(files)
    for file in [file for file in files if file.of_slicer][: not names]:
        names = names_of_segments(file.path)  # reading the others compares theirs
    if not files and not found.refused:
        raise BadData(f"{place}: no label maps in it (.nii, .nii.gz, .nrrd, .mha)")
    return files, found, names


def find_pairs(truth: Path, prediction: Path, skip: Collection[Path] = ()) -> Pairs:
    """Pairs the label maps of two folders, or of two files.

    A pair has one name, folders below the two included; `NAME_0000` is NAME where no
    other channel is beside it. Two files are a pair whatever their names.

    Raises:
      BadArguments: both are one place.
      BadData: one is missing or has no label maps, or they have no name in common.
    """
    if truth.resolve() == prediction.resolve():
        raise BadArguments(
            f"--truth and --prediction are both {truth}: a label map agrees with itself"
        )
    truths, found, truth_names = find_label_maps(truth, [*skip, prediction])
    predictions, others, names = find_label_maps(prediction, [*skip, truth])
    result = Pairs(
        refused=[*found.refused, *others.refused],
        unused=others.unused,
        mask_names={"truth": truth_names, "prediction": names},
    )
    if truth.is_file() and prediction.is_file():
        matches = {0: 0}
    else:
        matches = match([*truths], [*predictions])
    used = set(matches.values())
    result.without_prediction = [f for i, f in enumerate(truths) if i not in matches]
    result.without_truth = [f for i, f in enumerate(predictions) if i not in used]
    by_id: dict[str, LabelMapFile] = {}
    for i, j in sorted(matches.items(), key=lambda ij: truths[ij[0]].identity):
        case_id = case_id_of(truths[i].identity)
        if case_id in by_id:
            raise BadData(
                f"{truths[i].path}: would be case {case_id}, as "
                f"{by_id[case_id].path}; rename one"
            )
        by_id[case_id] = truths[i]
        result.pairs.append(Pair(case_id, truths[i], predictions[j]))
    if not result.pairs:
        if result.refused:
            raise BadData(result.refused[0])
        raise BadData(_no_pair(truth, prediction, truths, predictions))
    return result


def match(
    truths: Sequence[LabelMapFile], predictions: Sequence[LabelMapFile]
) -> dict[int, int]:
    """Returns the prediction of each truth, by their places in the two lists.

    Files of one written name belong together before those of one identity: whether
    `_0000` is a channel is told by what else is in a folder, which may differ.
    """
    matches: dict[int, int] = {}
    left = dict(enumerate(predictions))
    for of_truth, of_prediction in (
        ("stem", "stem"),
        ("identity", "identity"),
        ("identity", "stem"),
        ("stem", "identity"),
    ):
        places = {getattr(file, of_prediction): j for j, file in left.items()}
        for i, file in enumerate(truths):
            if i not in matches and (j := places.get(getattr(file, of_truth))) in left:
                assert j is not None
                matches[i] = j
                del left[j]
    return matches


def names_of(files: Iterable[LabelMapFile]) -> str:
    """Returns the first names, and how many more there are."""
    names = [file.identity for file in files]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _no_pair(
    truth: Path,
    prediction: Path,
    truths: Sequence[LabelMapFile],
    predictions: Sequence[LabelMapFile],
) -> str:
    message = (
        f"{prediction}: no label map has the name of one in {truth} (there "
        f"{names_of(truths)}; here {names_of(predictions)})"
    )
    places = [_last(files) for files in (truths, predictions)]
    for name in places[0].keys() & places[1].keys():
        folders = [place[name].rpartition("/")[0] for place in places]
        flags = [
            f"--{flag}={root / folder}"
            for flag, root, folder in zip(
                ("truth", "prediction"), (truth, prediction), folders, strict=True
            )
            if folder
        ]
        return f"{message}; their folders differ: give {' '.join(flags)}"
    return f"{message}; give the files equal names"


def _last(files: Iterable[LabelMapFile]) -> Mapping[str, str]:
    """Identities by their last part."""
    return {file.identity.rpartition("/")[2]: file.identity for file in files}
