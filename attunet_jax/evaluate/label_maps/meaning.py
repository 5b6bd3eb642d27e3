"""What the values of two folders' label maps mean, and which of them are one organ.

Organs are matched by name: value 1 may be the spleen in one folder and the liver in the
other. Names are those of a flag, or of labels.json or dataset.json (nnU-Net, Decathlon)
in the folder or beside it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attunet_jax.data.label_names import IGNORE, named_values, parse_organs
from attunet_jax.errors import BadArguments
from attunet_jax.files import read_json

_FILES = ("labels.json", "dataset.json")


@dataclass(frozen=True)
class Organ:
    """An organ with its values in the truth's label maps and in the predictions."""

    name: str
    truth: tuple[int, ...]
    prediction: tuple[int, ...]


@dataclass(frozen=True)
class Meaning:
    """The organs to score; voxels of the truth with an `ignored` value are left out.

    `notes` say in lines what was matched, and what is not scored.
    """

    organs: tuple[Organ, ...]
    ignored: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """Organ -> values of one side, and who says so."""

    organs: Mapping[str, tuple[int, ...]]
    source: str
    ignored: tuple[int, ...] = ()
    given: bool = field(default=False)  # by a flag


def names_of_flag(text: str, flag: str) -> Names:
    """Reads `spleen=1,kidney=2+3`. Raises `BadArguments` naming the flag."""
    try:
        organs = parse_organs(text)
    except BadArguments as error:
        raise BadArguments(str(error).replace("--labels", f"--{flag}", 1)) from None
    ignored = organs.pop(IGNORE, ())
    if not organs:
        raise BadArguments(f"--{flag}={text}: names no organ")
    return Names(organs, f"--{flag}", ignored, given=True)


def names_beside(place: Path) -> Names | None:
    """Reads what labels.json or dataset.json in a folder, or beside it, names.

    Beside fold_0/validation of nnU-Net's results it is the folder of all folds. Raises
    `BadData` where such a file names labels in no way that is known.
    """
    folder = place if place.is_dir() else place.parent
    folder = folder.resolve()
    folders = [folder, folder.parent]
    if folder.parent.name.startswith("fold_"):
        folders.append(folder.parent.parent)
    for path in (folder / name for folder in folders for name in _FILES):
        try:
            content = read_json(path)
        except FileNotFoundError:
            continue
        labels = content
        if path.name == "dataset.json":
            labels = content.get("labels") if isinstance(content, dict) else None
            if labels is None:
                continue
        organs, ignored = named_values(path, labels)
        return Names(organs, str(path), ignored)
    return None


def meaning_of(truth: Names | None, prediction: Names | None) -> Meaning | None:
    """Matches the organs of both sides by name, whatever the case of letters.

    A side without names has those of the other. None where nobody names anything.

    Raises:
      BadArguments: the two have no organ in common, or not one that a flag asks for.
    """
    if truth is None and prediction is None:
        return None
    notes = []
    if truth is None or prediction is None:
        side, known = ("truth", prediction) if truth is None else ("prediction", truth)
        assert known is not None
        if not known.given:
            notes.append(f"values of the {side} mean what {known.source} says")
        truth = prediction = known
    folded = _folded(prediction.organs)
    organs, missing = [], []
    for name, values in truth.organs.items():
        theirs = prediction.organs.get(name) or folded.get(name.casefold())
        if theirs is None:
            missing.append(name)
        else:
            organs.append(Organ(name, values, theirs))
    here = {organ.name.casefold() for organ in organs}
    extra = [name for name in prediction.organs if name.casefold() not in here]
    if not organs or (missing and truth.given):
        lacks = ", ".join(missing)
        raise BadArguments(
            f"{prediction.source}: has no {lacks} (it has "
            f"{', '.join(prediction.organs)}), which {truth.source} names; give "
            f"--prediction_labels={missing[0]}=VALUE"
            + ("" if truth.given else f" and --labels={missing[0]}=VALUE")
        )
    for organ in organs:
        if organ.truth != organ.prediction:
            notes.append(
                f"{organ.name} is value {_shown(organ.truth)} in the truth and "
                f"{_shown(organ.prediction)} in the prediction: matched by name"
            )
    for names, source in ((missing, truth.source), (extra, prediction.source)):
        if names and not (source == prediction.source and truth.given):
            notes.append(f"not scored, only {source} names it: {', '.join(names)}")
    return Meaning(tuple(organs), truth.ignored, tuple(notes))


def by_values(truth: Collection[int], prediction: Collection[int]) -> Meaning | None:
    """Makes an organ `label_1` of each value above 0 that occurs on either side.

    None where the two have no value in common.
    """
    values = sorted({*truth, *prediction} - {0})
    if not {*truth} & {*prediction} - {0}:
        return None
    return Meaning(tuple(Organ(f"label_{v}", (v,), (v,)) for v in values))


def _folded(organs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Organs by names in small letters; none where two would be one."""
    folded = {name.casefold(): values for name, values in organs.items()}
    return folded if len(folded) == len(organs) else {}


def _shown(values: tuple[int, ...]) -> str:
    return "+".join(map(str, values))
