"""How much scores differ between cases, and between trainings with other seeds.

Cases and seeds are crossed: each case is scored by the network of each seed, once. The
model is that of two random effects, score = mean + case + seed + rest; its variances
are the analysis-of-variance estimates, a negative one taken as 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from attunet_jax.evaluate.statistics.intervals import CONFIDENCE
from attunet_jax.evaluate.statistics.scores import penalty


@dataclass(frozen=True)
class Spread:
    """Deviations of one network's scores of one organ and metric."""

    organ: str
    metric: str
    n: int  # cases that all seeds define
    left_out: int  # cases that one of them does not
    seeds: int
    mean: float
    seed_means: dict[str, float]
    std_cases: float
    std_seeds: float
    std_rest: float  # what is left: a case's own reaction to a seed, and noise
    low: float  # 95 % interval of the mean over new cases and new seeds
    high: float


def has_seeds(rows: Iterable[Mapping]) -> bool:
    """Whether the rows are of two or more seeds."""
    return len({row.get("seed") for row in rows}) > 1


def spread_of_seeds(rows: Iterable[Mapping], organ: str, metric: str) -> Spread | None:
    """Splits the variance of scores; None below two seeds or two cases."""
    scores, seeds, left_out = score_matrix(rows, organ, metric)
    s, n = scores.shape
    if s < 2 or n < 2:
        return None
    mean = scores.mean()
    of_case, of_seed = scores.mean(axis=0), scores.mean(axis=1)
    rest = scores - of_case - of_seed[:, None] + mean
    # Mean squares, by degrees of freedom.
    ms_case = s * np.sum((of_case - mean) ** 2) / (n - 1)
    ms_seed = n * np.sum((of_seed - mean) ** 2) / (s - 1)
    ms_rest = np.sum(rest**2) / ((n - 1) * (s - 1))
    half = _half_interval(n, s, ms_case, ms_seed, ms_rest)
    return Spread(
        organ=organ,
        metric=metric,
        n=n,
        left_out=left_out,
        seeds=s,
        mean=float(mean),
        seed_means={str(k): float(v) for k, v in zip(seeds, of_seed, strict=True)},
        std_cases=_root((ms_case - ms_rest) / s),
        std_seeds=_root((ms_seed - ms_rest) / n),
        std_rest=_root(ms_rest),
        low=float(mean - half),
        high=float(mean + half),
    )


def score_matrix(
    rows: Iterable[Mapping],
    organ: str,
    metric: str,
    cases: Iterable[str] | None = None,
    *,
    penalised: bool = False,
) -> tuple[np.ndarray, list, int]:
    """Returns scores `[seeds, cases]`, the seeds, and how many cases were left out.

    Only cases that each seed defines, in alphabetical order; those of `cases` if given.
    """
    by_seed: dict[object, dict[str, float]] = {}
    known: set[str] = set()
    for row in rows:
        if row["organ"] != organ:
            continue
        known.add(row["case_id"])
        value, of_seed = row.get(metric), by_seed.setdefault(row.get("seed"), {})
        if value is None and penalised:
            value = penalty(row, metric)
        if value is not None:
            of_seed[row["case_id"]] = value
    whole = known.intersection(*by_seed.values()) if by_seed else set()
    chosen = sorted(whole if cases is None else whole.intersection(cases))
    scores = [[of_seed[case] for case in chosen] for of_seed in by_seed.values()]
    matrix = np.array(scores, float).reshape(len(by_seed), len(chosen))
    return matrix, list(by_seed), len(known) - len(whole)


def _half_interval(
    n: int, s: int, ms_case: float, ms_seed: float, ms_rest: float
) -> float:
    """Half of Student's interval, degrees of freedom by Satterthwaite.

    The variance of the mean is (MS_case + MS_seed - MS_rest) / (n s). Where seeds
    differ by no more than the rest does, it is that of cases alone.
    """
    if ms_seed <= ms_rest:
        square, freedom = ms_case, n - 1.0
    else:
        square = ms_case + ms_seed - ms_rest
        freedom = square**2 / (
            ms_case**2 / (n - 1)
            + ms_seed**2 / (s - 1)
            + ms_rest**2 / ((n - 1) * (s - 1))
        )
    if square <= 0:
        return 0.0
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(square / (n * s)))


def _root(variance: float) -> float:
    return float(np.sqrt(max(variance, 0.0)))
