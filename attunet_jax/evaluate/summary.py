"""Mean and standard deviation of scores over cases, by organ and metric.

The deviation is that of the population (divided by n, as numpy.nanstd in the
published evaluation; the paper does not say). Undefined scores (None) are left out of
both and counted.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attunet_jax.evaluate.definitions import METRICS


def summary(
    rows: Iterable[Mapping], metrics: Sequence[str] = tuple(METRICS)
) -> dict[str, dict[str, dict]]:
    """Averages the scores of each organ over cases.

    Args:
      rows: a row for each case and organ, with `organ` and the metrics. Where rows
        have a `seed`, each case counts once, with its mean over the seeds.

    Returns:
      organ -> metric -> {mean, std, n, undefined}: mean and std are None where no
      case defines the metric; n cases do, `undefined` do not. Organs keep the order
      in which they first appear.
    """
    by_organ: dict[str, list[Mapping]] = {}
    for row in over_seeds(rows, metrics):
        by_organ.setdefault(row["organ"], []).append(row)
    return {
        organ: {
            metric: _spread([row.get(metric) for row in of_organ]) for metric in metrics
        }
        for organ, of_organ in by_organ.items()
    }


def over_seeds(
    rows: Iterable[Mapping], metrics: Sequence[str] = tuple(METRICS)
) -> list[Mapping]:
    """Averages the scores of each case and organ over the seeds of its network.

    A score that one of the seeds leaves undefined is undefined. Rows without a `seed`
    come back as they are.
    """
    rows = list(rows)
    if not any("seed" in row for row in rows):
        return rows
    groups: dict[tuple[str, str], list[Mapping]] = {}
    for row in rows:
        groups.setdefault((row["case_id"], row["organ"]), []).append(row)
    return [
        {**group[0], **{m: _mean([row.get(m) for row in group]) for m in metrics}}
        for group in groups.values()
    ]


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def _spread(values: list[float | None]) -> dict:
    defined = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "std": float(np.std(defined)) if defined else None,
        "n": len(defined),
        "undefined": len(values) - len(defined),
    }


def markdown_summary(numbers: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Formats the result of `summary` in Markdown: a row an organ, a column a metric.

    `(n=4 of 5)` marks a metric that is undefined in one of five cases, "-" one that is
    undefined in all.
    """
    metrics = list(dict.fromkeys(m for of_organ in numbers.values() for m in of_organ))
    lines = [["organ", *metrics], ["---"] * (1 + len(metrics))]
    for organ, of_organ in numbers.items():
        cells = [spread_text(of_organ[m]) if m in of_organ else "-" for m in metrics]
        lines.append([organ.replace("|", "\\|"), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread_text(spread: Mapping) -> str:
    """Returns `0.612 ± 0.110`, followed by `(n=4 of 5)` where not all cases count."""
    if spread["mean"] is None:
        return "-"
    text = f"{spread['mean']:.3f} ± {spread['std']:.3f}"
    if spread["undefined"]:
        text += f" (n={spread['n']} of {spread['n'] + spread['undefined']})"
    return text
