"""Writes splits.json, unless a user has written or changed it: then it is checked.

The program's own file carries a digest of its content. A file without one, or with
another, is the user's; files made before there was a digest are the program's where
`make_splits` draws the same again.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import FORMAT_VERSION, PARTS
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import read_json
from data_prep.patients import Patients
from data_prep.shard import write_json
from data_prep.splits import FOLDS, make_splits
from data_prep.wording import listed

NAME = "splits.json"
_REMEDY = f"correct it, or move it away: then {NAME} is made anew"
_MADE_BY = "data_prep.prepare"


def user_splits(folder: Path) -> dict[str, Any] | None:
    """Returns the content of the folder's splits.json where it is the user's own.

    Raises `BadData` where it cannot be read: it is not overwritten.
    """
    path = folder / NAME
    try:
        content = read_json(path, _REMEDY)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise BadData(f'{path}: no map with "version" and "splits"; {_REMEDY}')
    stored = content.get("sha256")
    own = stored == _digest(content) if stored else _drawn_before(content)
    return None if own else content


def write_splits(
    folder: Path,
    splits: Mapping[str, Mapping[str, Sequence[str]]],
    seed: int,
    patients: Patients,
) -> list[str]:
    """Writes splits.json, where it is not the user's own; returns lines to print.

    Raises `BadData` for a file of the user's that does not fit the cases.
    """
    path = folder / NAME
    content = user_splits(folder)
    if content is not None:
        return _check(path, content, patients)
    before = read_json(path) if path.exists() else {}
    made: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "seed": seed,
        "patients": patients.as_json(),
        "splits": splits,
        "made_by": _MADE_BY,
    }
    made["sha256"] = _digest(made)
    if before.get("sha256") != made["sha256"]:
        write_json(path, made)
    lines = []
    if before and _plain(before["splits"]) != _plain(splits):
        lines.append(f"{path}: drawn again: other cases, patients or flags than before")
    for name, parts in splits.items():  # published folds are as published
        lines += _torn(path, name, parts, patients)
    return lines


def _check(path: Path, content: dict[str, Any], patients: Patients) -> list[str]:
    """Compares a user's splits with the cases; returns what the user should know."""
    splits = content.get("splits")
    version = content.get("version")
    if version != FORMAT_VERSION or not isinstance(splits, dict) or not splits:
        raise BadData(
            f'{path}: is your own, but has no "version": {FORMAT_VERSION} and '
            f'"splits"; {_REMEDY}'
        )
    lines = [f"{path}: is your own and was kept as it is"]
    for name, parts in splits.items():
        if not _is_split(parts):
            raise BadData(
                f"{path}: split {name} is no map with lists {', '.join(PARTS)}; "
                f"{_REMEDY}"
            )
        named = [case_id for part in PARTS for case_id in parts[part]]
        if unknown := sorted(set(named) - patients.of.keys()):
            raise BadData(
                f"{path}: split {name} names {len(unknown)} cases that are not in the "
                f"prepared data: {listed(unknown)}; {_REMEDY}"
            )
        if twice := sorted({c for c in named if named.count(c) > 1}):
            raise BadData(
                f"{path}: split {name} names cases twice: {listed(twice)}; {_REMEDY}"
            )
        lines += _remarks(path, name, parts, patients)
    return lines


def _remarks(
    path: Path, name: str, parts: Mapping[str, Collection[str]], patients: Patients
) -> list[str]:
    """What is allowed in a user's split, but may be a mistake."""
    part_of = {case_id: part for part in PARTS for case_id in parts[part]}
    lines = []
    if missing := [c for c in sorted(patients.of) if c not in part_of]:
        lines.append(
            f"{path}: split {name} lacks {len(missing)} cases, which take no part: "
            f"{listed(missing)}"
        )
    return lines + _torn(path, name, parts, patients)


def _torn(
    path: Path, name: str, parts: Mapping[str, Collection[str]], patients: Patients
) -> list[str]:
    part_of = {case_id: part for part in PARTS for case_id in parts[part]}
    torn = [
        " and ".join(f"{c} ({part_of[c]})" for c in unit if c in part_of)
        for unit in patients.units
        if len({part_of[c] for c in unit if c in part_of}) > 1
    ]
    if not torn:
        return []
    return [
        f"{path}: warning: split {name} has {len(torn)} patients on both sides: "
        f"{listed(torn)}"
    ]


def _is_split(parts: Any) -> bool:
    return (
        isinstance(parts, dict)
        and parts.keys() == set(PARTS)
        and all(
            isinstance(ids, list) and all(isinstance(c, str) for c in ids)
            for ids in parts.values()
        )
    )


def _drawn_before(content: Mapping[str, Any]) -> bool:
    """Whether a file without digest is what this program made, of whatever flags."""
    splits, seed = content.get("splits"), content.get("seed")
    if content.keys() != {"version", "seed", "splits"} or not isinstance(splits, dict):
        return False
    if type(seed) is not int or seed < 0 or not all(map(_is_split, splits.values())):
        return False
    if "75_25" not in splits or len(splits) < 2:
        return False
    cases = [case_id for ids in splits["75_25"].values() for case_id in ids]
    names = [name.partition("_")[0] for name in splits if "fold" not in name]
    for percent in names:
        if not percent.isdigit():
            return False
        for validation in _shares(splits["75_25"]):
            for folds in FOLDS:
                try:
                    again = make_splits(
                        cases,
                        seed=seed,
                        test_fraction=round(1 - int(percent) / 100, 2),
                        validation_fraction=validation,
                        folds=folds,
                    )
                except BadArguments:
                    continue
                if _plain(again) == _plain(splits):
                    return True
    return False


def _shares(parts: Mapping[str, Sequence[str]]) -> list[float]:
    """The default share of validation cases, and that of a split."""
    pool = len(parts["train"]) + len(parts["validation"])
    return [0.1, 0.0, len(parts["validation"]) / max(pool, 1)]


def _digest(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(splits: Any) -> Any:
    return json.loads(json.dumps(splits))
