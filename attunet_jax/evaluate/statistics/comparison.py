"""Compares each pair of networks on the same cases, by organ and metric."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from attunet_jax.evaluate.statistics.intervals import deviation, mean_interval
from attunet_jax.evaluate.statistics.paired import (
    MIN_PAIRS,
    false_claim_probability,
    holm,
    paired_differences,
    smallest_detectable,
    wilcoxon_p,
)
from attunet_jax.evaluate.statistics.scores import by_case, by_organ, lower_is_better


@dataclass(frozen=True)
class Comparison:
    """Second network minus first, over the cases in which both define the metric.

    Errors with a sign are compared by their absolute value.
    """

    first: str
    second: str
    organ: str
    metric: str
    n: int  # pairs
    undefined: int  # cases of both in which one or both leave the metric undefined
    mean_difference: float | None
    std: float | None  # sample deviation of the differences
    low: float | None  # 95 % interval of the mean difference; None below two pairs
    high: float | None
    p: float | None  # of the signed-rank test
    p_holm: float | None  # corrected for the family
    false_claim: float | None  # probability that "the second is better" is false
    detectable: float | None  # smallest difference these pairs show, power 0.8
    better: str | None  # a network, where the interval leaves out 0
    # With undefined scores at their penalty; None where there is none, or not known.
    penalised_difference: float | None
    penalised_n: int


Scores = dict[str, float | None]  # of each case, None where undefined


def compare_pair(
    names: tuple[str, str],
    first: Iterable[Mapping],
    second: Iterable[Mapping],
    *,
    organ: str,
    metric: str,
    interval: str = "t",
    seed: int = 0,
) -> Comparison:
    """Compares two networks; p_holm is p until `with_holm` knows the family.

    Args:
      first, second: rows; those of several seeds are averaged case by case.
      interval, seed: as for `mean_interval`.

    Raises:
      ValueError: a network holds a case, organ and seed twice.
    """
    scores = [_scores(rows, organ, metric) for rows in (first, second)]
    return _compare(names, scores, organ, metric, interval, seed)


def compare_networks(
    networks: Mapping[str, Sequence[Mapping]],
    *,
    organs: Sequence[str],
    metrics: Sequence[str],
    interval: str = "t",
    seed: int = 0,
) -> list[Comparison]:
    """Compares all pairs, in the order of `networks`; one family for Holm.

    Pairs without a case that both define are left out.
    """
    quantities = [(organ, metric) for organ in organs for metric in metrics]
    return compare_quantities(networks, quantities, interval=interval, seed=seed)


def compare_quantities(
    networks: Mapping[str, Sequence[Mapping]],
    quantities: Iterable[tuple[str, str]],
    *,
    interval: str = "t",
    seed: int = 0,
) -> list[Comparison]:
    """Compares all pairs in each (organ, metric), as `compare_networks`."""
    quantities = list(dict.fromkeys(quantities))
    rows = {name: by_organ(of_network) for name, of_network in networks.items()}
    scores = {
        (name, *quantity): _scores(rows[name].get(quantity[0], ()), *quantity)
        for name in networks
        for quantity in quantities
    }
    found = [
        _compare(
            pair,
            [scores[name, organ, metric] for name in pair],
            organ,
            metric,
            interval,
            seed,
        )
        for pair in combinations(networks, 2)
        for organ, metric in quantities
    ]
    return with_holm([comparison for comparison in found if comparison.n])


def _scores(rows: Iterable[Mapping], organ: str, metric: str) -> tuple[Scores, Scores]:
    """Returns the scores without and with penalties."""
    rows = list(rows)
    without, penalised = (
        by_case(rows, organ, metric, penalised=penalised, absolute=True)
        for penalised in (False, True)
    )
    return without, penalised


def _compare(
    names: tuple[str, str],
    scores: Sequence[tuple[Scores, Scores]],
    organ: str,
    metric: str,
    interval: str,
    seed: int,
) -> Comparison:
    first, second = scores
    differences, shared = _differences(first[0], second[0])
    n = differences.size
    low, high = mean_interval(differences, interval, seed)
    mean = float(differences.mean()) if n else None
    sign = -1 if lower_is_better(metric) else 1
    penalised, _ = _differences(first[1], second[1])
    with_penalty = float(penalised.mean()) if penalised.size > n else None
    p = wilcoxon_p(differences)
    return Comparison(
        first=names[0],
        second=names[1],
        organ=organ,
        metric=metric,
        n=n,
        undefined=shared - n,
        mean_difference=mean,
        std=float(deviation(differences)) if n > 1 else None,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        false_claim=false_claim_probability(sign * differences),
        detectable=smallest_detectable(differences),
        better=_better(names, sign, n, low, high, with_penalty),
        penalised_difference=with_penalty,
        penalised_n=penalised.size if with_penalty is not None else n,
    )


def with_holm(family: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons with p corrected for all of them together."""
    corrected = holm([comparison.p for comparison in family])
    return [replace(c, p_holm=p) for c, p in zip(family, corrected, strict=True)]


def best_of(comparisons: Iterable[Comparison], count: int) -> set[tuple[str, str, str]]:
    """Returns network, organ and metric of what beats all others of `count`."""
    wins: dict[tuple[str, str, str], int] = {}
    for comparison in comparisons:
        if comparison.better:
            won = comparison.better, comparison.organ, comparison.metric
            wins[won] = wins.get(won, 0) + 1
    return {won for won, times in wins.items() if times == count - 1}


def _differences(first: Scores, second: Scores) -> tuple[np.ndarray, int]:
    """Returns the differences, and how many cases both networks have."""
    cases = sorted(first.keys() & second.keys())
    pairs = [(first[case], second[case]) for case in cases]
    defined = [(x, y) for x, y in pairs if x is not None and y is not None]
    difference = paired_differences([x for x, _ in defined], [y for _, y in defined])
    return difference, len(cases)


def _better(
    names: tuple[str, str],
    sign: int,
    n: int,
    low: float | None,
    high: float | None,
    with_penalty: float | None,
) -> str | None:
    """Names a network where the interval leaves out 0 and nothing speaks against it.

    Not from fewer than MIN_PAIRS, nor where the organs that a network missed would
    turn the difference round.
    """
    if n < MIN_PAIRS or low is None or high is None or low <= 0 <= high:
        return None
    gain = sign * (1 if low > 0 else -1)
    if with_penalty is not None and sign * with_penalty * gain <= 0:
        return None
    return names[1] if gain > 0 else names[0]
