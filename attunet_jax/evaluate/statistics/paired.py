"""What the differences of two networks on the same cases allow to say.

`differences` is `[n]`, second network minus first, a number a case.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from attunet_jax.evaluate.statistics.intervals import deviation

LEVEL = 0.05  # two-sided
POWER = 0.8
# Five differences of equal sign give p = 2 / 2**5 = 0.0625: with fewer than six, no
# signed-rank test can be significant at 0.05.
MIN_PAIRS = 6
# Scores are ratios of counts: differences that are equal on paper are ties, whatever
# their last bits.
_DECIMALS = 12


def paired_differences(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    """Returns second minus first, where equal differences are equal numbers."""
    difference = np.asarray(second, float) - np.asarray(first, float)
    return np.round(difference, _DECIMALS) + 0.0  # no -0.0


def wilcoxon_p(differences: np.ndarray) -> float | None:
    """Returns p of the two-sided signed-rank test; None without a pair.

    Pairs that are equal are left out (Wilcoxon's own way); if all are, p is 1. With
    ties or many pairs, scipy chooses between all sign patterns and the normal law.
    """
    if not differences.size:
        return None
    unequal = differences[differences != 0]
    if not unequal.size:
        return 1.0
    return float(stats.wilcoxon(unequal, alternative="two-sided").pvalue)  # pyright: ignore


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p corrected for the size of the family (Holm 1979); None stays None."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def false_claim_probability(gains: np.ndarray) -> float | None:
    """Returns the probability that the claim "the second is better" is false.

    That of a mean gain below 0, given the gains seen and a flat prior: Student's t with
    n - 1 degrees of freedom at -sqrt(n) * mean / deviation, the formula of
    claims-reloaded.dkfz.de with the pairs known.

    Args:
      gains: differences, positive where the second is better. None is returned below
        two.
    """
    if gains.size < 2:
        return None
    mean, spread = gains.mean(), deviation(gains)
    if spread == 0:
        return 0.5 if mean == 0 else float(mean < 0)
    return float(stats.t.cdf(-np.sqrt(gains.size) * mean / spread, gains.size - 1))


def smallest_detectable(differences: np.ndarray) -> float | None:
    """Returns the mean difference that so many cases show with a power of 0.8.

    By the two-sided paired t test at 0.05, if the differences spread as these do. None
    below two.
    """
    if differences.size < 2:
        return None
    spread = float(deviation(differences))
    return _noncentrality(differences.size) * spread / float(np.sqrt(differences.size))


@lru_cache
def _noncentrality(n: int) -> float:
    """Returns the noncentrality at which the t test of n pairs has the power."""
    critical = stats.t.ppf(1 - LEVEL / 2, n - 1)

    def missing(noncentrality: float) -> float:
        above = stats.nct.sf(critical, n - 1, noncentrality)
        below = stats.nct.cdf(-critical, n - 1, noncentrality)
        return float(above + np.nan_to_num(below)) - POWER  # NaN: as good as 0

    found = optimize.root_scalar(missing, bracket=(1e-6, 2 * critical + 2))
    return float(found.root)
