"""Case ids and a seed in, the named splits of splits.json out."""

from collections.abc import Sequence

import numpy as np


def make_splits(
    case_ids: Sequence[str],
    *,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
) -> dict[str, dict[str, list[str]]]:
    """`80_20` and `20_80` (for a test fraction of 0.2): Table 1's two splits.

    Both come from one shuffle: the test cases of the first are, for 120/30, a fifth of
    all; the second turns it round, 30/120. Validation cases are carved out of the
    training pool, at least one where it has four or more.
    """
    order = np.random.default_rng(seed).permutation(sorted(case_ids)).tolist()
    small = max(round(len(order) * test_fraction), 1) if len(order) > 1 else 0
    percent = round(test_fraction * 100)
    return {
        f"{100 - percent}_{percent}": _parts(
            order[small:], order[:small], validation_fraction
        ),
        f"{percent}_{100 - percent}": _parts(
            order[:small], order[small:], validation_fraction
        ),
    }


def _parts(
    pool: list[str], test: list[str], validation_fraction: float
) -> dict[str, list[str]]:
    count = round(len(pool) * validation_fraction)
    if validation_fraction > 0 and len(pool) >= 4:
        count = max(count, 1)
    return {
        "train": sorted(pool[count:]),
        "validation": sorted(pool[:count]),
        "test": sorted(test),
    }
