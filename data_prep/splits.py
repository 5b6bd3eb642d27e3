"""Draws the named splits of splits.json from the case ids and a seed."""

import re
from collections.abc import Sequence

import numpy as np

from attunet_jax.errors import BadArguments

FOLDS = ("random", "ct82")
FOLD_COUNT = 5
CT82_CASES = 82


def make_splits(
    case_ids: Sequence[str],
    *,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    folds: str,
) -> dict[str, dict[str, list[str]]]:
    """Returns split -> "train", "validation", "test" -> case ids.

    The splits are the paper's, as far as the number of cases allows: `80_20` and its
    inverse `20_80` (for a test fraction of 0.2): 120/30 and 30/120 of CT-150; `75_25`:
    61/21 of CT-82; `fold_1` to `fold_5`. All are shuffles with `seed`, but the folds
    "ct82", which are published. Validation cases are taken from each training pool, at
    least one from a pool of four or more. Raises `BadArguments` where folds "ct82" are
    requested and a case is not of CT-82.
    """
    order = np.random.default_rng(seed).permutation(sorted(case_ids)).tolist()
    small = max(round(len(order) * test_fraction), 1) if len(order) > 1 else 0
    quarter = len(order) - int(len(order) * 0.75) if len(order) > 1 else 0
    percent = round(test_fraction * 100)
    tests = {"75_25": order[:quarter]}
    tests[f"{100 - percent}_{percent}"] = order[:small]
    tests[f"{percent}_{100 - percent}"] = order[small:]
    if folds == "ct82":
        tests |= _ct82_folds(order)
    elif len(order) >= FOLD_COUNT:
        shuffled = np.random.default_rng([seed, FOLD_COUNT]).permutation(order)
        parts = np.array_split(shuffled, FOLD_COUNT)
        tests |= {f"fold_{k}": part.tolist() for k, part in enumerate(parts, start=1)}
    return {
        name: _parts(order, test, validation_fraction) for name, test in tests.items()
    }


def _parts(
    order: list[str], test: list[str], validation_fraction: float
) -> dict[str, list[str]]:
    """The split that tests on `test`; its other cases keep their order."""
    tested = set(test)
    pool = [case_id for case_id in order if case_id not in tested]
    count = round(len(pool) * validation_fraction)
    if validation_fraction > 0 and len(pool) >= 4:
        count = max(count, 1)
    return {
        "train": sorted(pool[count:]),
        "validation": sorted(pool[:count]),
        "test": sorted(test),
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
