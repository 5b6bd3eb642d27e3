"""Tests whether two runs differ on the same cases.

The paper gives p-values and names no test. Ours is the two-sided Wilcoxon signed-rank
test of the differences case by case, with a bootstrap interval of their mean.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Five differences of equal sign give p = 2 / 2**5 = 0.0625: below six pairs no result
# could be significant at 0.05.
MIN_PAIRS = 6
CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedTest:
    """Second run minus first, over the cases in which both define the metric."""

    n: int
    mean_difference: float | None  # None without a pair
    low: float | None  # of the interval; None below MIN_PAIRS
    high: float | None
    p: float | None  # None below MIN_PAIRS

    @property
    def why_not(self) -> str:
        """Why there is no p; empty if there is one."""
        if self.p is not None:
            return ""
        return f"not tested: {self.n} pairs, fewer than {MIN_PAIRS}"


def paired_test(
    first: Iterable[Mapping],
    second: Iterable[Mapping],
    *,
    organ: str,
    metric: str,
    seed: int,
) -> PairedTest:
    """Compares two runs on the cases that both have.

    Args:
      first, second: rows with `case_id`, `organ` and the metric.
      seed: of the bootstrap.

    Raises:
      ValueError: a run holds a case and organ twice.
    """
    a, b = (_by_case(rows, organ, metric) for rows in (first, second))
    differences = np.array([b[case] - a[case] for case in sorted(a.keys() & b.keys())])
    n = differences.size
    mean = float(differences.mean()) if n else None
    if n < MIN_PAIRS:
        return PairedTest(n=n, mean_difference=mean, low=None, high=None, p=None)
    low, high = _interval(differences, seed)
    return PairedTest(
        n=n, mean_difference=mean, low=low, high=high, p=_wilcoxon(differences)
    )


def _by_case(rows: Iterable[Mapping], organ: str, metric: str) -> dict[str, float]:
    values = {}
    for row in rows:
        if row["organ"] != organ:
            continue
        if row["case_id"] in values:
            raise ValueError(f"case {row['case_id']} has two rows for {organ}")
        values[row["case_id"]] = row.get(metric)
    return {case: value for case, value in values.items() if value is not None}


def _wilcoxon(differences: np.ndarray) -> float:
    """p of the two-sided signed-rank test, without the pairs that are equal."""
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0
    return float(stats.wilcoxon(differences, alternative="two-sided").pvalue)  # pyright: ignore


def _interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean difference."""
    draw = np.random.default_rng(seed).integers(
        differences.size, size=(RESAMPLES, differences.size)
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences[draw].mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)
