"""The rank of each of three or more networks, with an interval.

The interval is a bootstrap over cases and seeds: what the rank would be with other test
cases and other trainings. With one seed it is over cases alone. A rank is not a
difference: networks whose intervals overlap are not told apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from attunet_jax.evaluate.statistics.intervals import CONFIDENCE
from attunet_jax.evaluate.statistics.scores import (
    ERRORS,
    by_case,
    lower_is_better,
)
from attunet_jax.evaluate.statistics.seeds import score_matrix

MIN_NETWORKS = 3
RESAMPLES = 2000


@dataclass(frozen=True)
class Rank:
    network: str
    organ: str
    metric: str
    n: int  # cases that all networks define
    seeds: int
    rank: float  # 1 is the best; equal means share theirs
    low: float  # 95 % interval
    high: float


def ranks(
    networks: Mapping[str, Sequence[Mapping]], organ: str, metric: str, *, seed: int = 0
) -> list[Rank]:
    """Ranks networks by their mean over the cases that all define.

    Undefined distances of missed organs count with their penalty where it is known.
    None are ranked below MIN_NETWORKS that have the organ, or without a common case.

    Args:
      seed: of the bootstrap.
    """
    defined = {
        name: {
            case
            for case, value in by_case(rows, organ, metric, penalised=True).items()
            if value is not None
        }
        for name, rows in networks.items()
    }
    names = [name for name in networks if defined[name]]
    if len(names) < MIN_NETWORKS:
        return []
    cases = set.intersection(*(defined[name] for name in names))
    if not cases:
        return []
    matrices = [
        _oriented(
            score_matrix(networks[n], organ, metric, cases, penalised=True)[0], metric
        )
        for n in names
    ]
    rng = np.random.default_rng(seed)
    n = len(cases)
    of_case = _drawn_shares(n, rng)
    drawn = np.stack([_means(matrix, of_case, rng) for matrix in matrices])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(
        _ranked(drawn), (tail, 1 - tail), axis=1, method="inverted_cdf"
    )
    seen = _ranked(np.stack([matrix.mean() for matrix in matrices])[:, None])[:, 0]
    return [
        Rank(
            network=name,
            organ=organ,
            metric=metric,
            n=n,
            seeds=len(matrices[i]),
            rank=float(seen[i]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, name in enumerate(names)
    ]


def _oriented(scores: np.ndarray, metric: str) -> np.ndarray:
    """Turns scores so that less is better."""
    if metric in ERRORS:
        return np.abs(scores)
    return scores if lower_is_better(metric) else -scores


def _means(
    scores: np.ndarray, of_case: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the mean of each draw `[RESAMPLES]`: all draw cases alike, seeds each."""
    of_seed = _drawn_shares(len(scores), rng)
    return np.einsum("bs,sn,bn->b", of_seed, scores, of_case, optimize=True)


def _drawn_shares(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws n of n with replacement; returns the share of each `[RESAMPLES, n]`."""
    drawn = rng.integers(n, size=(RESAMPLES, n)) + n * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * n)
    return counts.reshape(RESAMPLES, n) / n


def _ranked(means: np.ndarray) -> np.ndarray:
    """Ranks over the first axis; means equal but for their last bits are equal."""
    return stats.rankdata(np.round(means, 12), axis=0)
