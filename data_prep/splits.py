"""Draws the named splits of splits.json from the case ids and a seed."""

import re
from collections.abc import Sequence

import numpy as np

from attunet_jax.errors import BadArguments

FOLDS = ("random", "ct82")
FOLD_COUNT = 5
CT82_CASES = 82
Unit = tuple[str, ...]  # cases that are in one part of a split


def make_splits(
    case_ids: Sequence[str],
    *,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    folds: str,
    units: Sequence[Sequence[str]] | None = None,
) -> dict[str, dict[str, list[str]]]:
    """Returns split -> "train", "validation", "test" -> case ids.

    The splits are the paper's, as far as the number of cases allows: `80_20` and its
    inverse `20_80` (for a test fraction of 0.2): 120/30 and 30/120 of CT-150; `75_25`:
    61/21 of CT-82; `fold_1` to `fold_5`. All are shuffles with `seed`, but the folds
    "ct82", which are published. Validation cases are taken from each training pool, at
    least one from a pool of four or more.

    `units` are groups of cases, those of a patient, that stay together: by default each
    case is one. Numbers of cases are then met as closely as their order allows; only
    the published folds take units apart. Raises `BadArguments` where folds "ct82" are
    requested and a case is not of CT-82.
    """
    unit_of = {ids[0]: tuple(ids) for ids in units or [[i] for i in case_ids]}
    shuffled = np.random.default_rng(seed).permutation(sorted(unit_of)).tolist()
    order = [unit_of[first] for first in shuffled]
    count = len(case_ids)
    small = quarter = 0
    if len(order) > 1:
        small = max(round(count * test_fraction), 1)
        quarter = count - int(count * 0.75)
    percent = round(test_fraction * 100)
    few = _first(order, small)
    tests: dict[str, list[Unit]] = {"75_25": _first(order, quarter)}
    tests[f"{100 - percent}_{percent}"] = few
    tests[f"{percent}_{100 - percent}"] = order[len(few) :]
    if folds == "ct82":
        published = _ct82_folds([case_id for unit in order for case_id in unit])
        tests |= {name: [(c,) for c in ids] for name, ids in published.items()}
    elif len(order) >= FOLD_COUNT:
        shuffled = np.random.default_rng([seed, FOLD_COUNT]).permutation(shuffled)
        again = [unit_of[first] for first in shuffled.tolist()]
        parts = _equal_parts(again, count)
        tests |= {f"fold_{k}": part for k, part in enumerate(parts, start=1)}
    return {
        name: _parts(order, test, validation_fraction) for name, test in tests.items()
    }


def _first(order: Sequence[Unit], count: int) -> list[Unit]:
    """The first units, whose number of cases is closest to `count`.

    At least one where `count` is above 0, and not all of them.
    """
    taken: list[Unit] = []
    held = 0
    for unit in order[:-1]:
        if held >= count or (taken and held + len(unit) - count > count - held):
            break
        taken.append(unit)
        held += len(unit)
    return taken


def _equal_parts(order: Sequence[Unit], count: int) -> list[list[Unit]]:
    """Divides the units into `FOLD_COUNT` parts of about as many cases."""
    if len(order) == count:  # single cases
        return [
            [order[i] for i in part]
            for part in np.array_split(np.arange(count), FOLD_COUNT)
        ]
    parts: list[list[Unit]] = [[] for _ in range(FOLD_COUNT)]
    for unit in sorted(order, key=len, reverse=True):
        min(parts, key=lambda part: sum(map(len, part))).append(unit)
    return parts


def _parts(
    order: Sequence[Unit], test: Sequence[Unit], validation_fraction: float
) -> dict[str, list[str]]:
    """The split that tests on `test`; its other cases keep their order."""
    tested = {case_id for unit in test for case_id in unit}
    pool = [
        rest for unit in order if (rest := tuple(c for c in unit if c not in tested))
    ]
    cases = sum(map(len, pool))
    count = round(cases * validation_fraction)
    if validation_fraction > 0 and cases >= 4:
        count = max(count, 1)
    held_out = _first(pool, count)
    return {
        "train": sorted(c for unit in pool[len(held_out) :] for c in unit),
        "validation": sorted(c for unit in held_out for c in unit),
        "test": sorted(tested),
    }


def _ct82_folds(case_ids: list[str]) -> dict[str, list[str]]:
    """The published five folds: scikit-learn's KFold(5, shuffle, random_state=0).

    Drawn over the 82 sorted cases (`prepare_tcia_ct_dataset_cv.py`). Missing cases,
    such as 25 and 70, which were withdrawn, are missing from their folds; the others
    stay where they are.
    """
    numbers = np.arange(CT82_CASES)
    np.random.RandomState(0).shuffle(numbers)
    folds: dict[str, list[str]] = {}
    by_number = {_number(case_id): case_id for case_id in case_ids}
    if len(by_number) < len(case_ids):
        raise BadArguments("--folds=ct82: two cases have the same number")
    for k, part in enumerate(np.array_split(numbers, FOLD_COUNT), start=1):
        present = sorted(set((part + 1).tolist()) & by_number.keys())
        folds[f"fold_{k}"] = [by_number[n] for n in present]
    return folds


def _number(case_id: str) -> int:
    """The last number of a name: 17 for PANCREAS_0017."""
    found = re.findall(r"\d+", case_id)
    if not found or not 1 <= int(found[-1]) <= CT82_CASES:
        raise BadArguments(
            f"--folds=ct82: case {case_id} does not end with its number from 1 to 82, "
            "as PANCREAS_0017 does"
        )
    return int(found[-1])
