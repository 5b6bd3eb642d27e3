"""Mean, deviation and interval of scores over cases, by organ and metric.

The deviation is that of the population (divided by n, as numpy.nanstd in the
published evaluation; the paper does not say). Undefined scores (None) are left out of
both and counted; a second mean counts them with their penalty (statistics/scores.py).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.markdown import grid
from attunet_jax.evaluate.statistics.intervals import (
    CONFIDENCE,
    UNRELIABLE_BELOW,
    mean_interval,
)
from attunet_jax.evaluate.statistics.scores import (
    by_case,
    by_organ,
    decimals,
    needs_penalty,
)


def summary(
    rows: Iterable[Mapping],
    metrics: Sequence[str] = tuple(METRICS),
    *,
    interval: str = "t",
    seed: int = 0,
) -> dict[str, dict[str, dict]]:
    """Averages the scores of each organ over cases.

    Args:
      rows: a row for each case and organ, with `organ` and the metrics. Where rows
        have a `seed`, each case counts once, with its mean over the seeds.
      interval, seed: as for `mean_interval`.

    Returns:
      organ -> metric -> {mean, std, low, high, n, undefined, penalised_mean,
      penalised}: n cases define the metric, `undefined` do not; mean and std are None
      where none does. low and high are the 95 % interval of the mean, None below two
      cases. In penalised_mean, `penalised` undefined cases count with their penalty; it
      is None where that is not known. Organs keep the order in which they first appear.

    Raises:
      ValueError: a case has two rows of an organ and of one seed.
    """
    return {
        organ: {
            metric: _spread(of_organ, organ, metric, interval, seed)
            for metric in metrics
        }
        for organ, of_organ in by_organ(rows).items()
    }


def _spread(
    rows: list[Mapping], organ: str, metric: str, interval: str, seed: int
) -> dict:
    scores = by_case(rows, organ, metric)
    defined = np.array([value for value in scores.values() if value is not None])
    low, high = mean_interval(defined, interval, seed)
    missed = {row["case_id"] for row in rows if needs_penalty(row, metric)}
    penalised = by_case(rows, organ, metric, penalised=True)
    counted = [v for v in penalised.values() if v is not None]
    known = bool(counted) and all(penalised[case] is not None for case in missed)
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "std": float(defined.std()) if defined.size else None,
        "low": low,
        "high": high,
        "n": defined.size,
        "undefined": len(scores) - defined.size,
        "penalised_mean": float(np.mean(counted)) if known else None,
        "penalised": len(missed),
    }


def spread_text(spread: Mapping, metric: str = "dice") -> str:
    """Returns `0.612 ± 0.110 [0.570, 0.654], n=30`, and how many are undefined.

    Where undefined distances are penalised, their mean with the penalty follows.
    """
    places = decimals(metric)
    text = "-"
    if spread["mean"] is not None:
        text = f"{spread['mean']:.{places}f} ± {spread['std']:.{places}f}"
    if spread["low"] is not None:
        text += f" [{spread['low']:.{places}f}, {spread['high']:.{places}f}]"
    text += f", n={spread['n']}"
    if spread["undefined"]:
        text += f", {spread['undefined']} undefined"
    return text + penalty_text(spread, metric)


def penalty_text(spread: Mapping, metric: str) -> str:
    """Returns ` (9.120 with 1 missed)`; nothing where no case was missed."""
    if not spread["penalised"]:
        return ""
    mean = spread["penalised_mean"]
    value = "no penalty known" if mean is None else f"{mean:.{decimals(metric)}f}"
    return f" ({value} with {spread['penalised']} missed)"


def reliability(smallest_n: int) -> str:
    """Says that intervals over so few cases are unreliable; nothing for enough."""
    if smallest_n >= UNRELIABLE_BELOW:
        return ""
    few = f"fewer than {UNRELIABLE_BELOW} cases"
    return f"Intervals are unreliable: n={smallest_n}, {few}."


def markdown_summary(
    numbers: Mapping[str, Mapping[str, Mapping]], rows: Iterable[Mapping] = ()
) -> str:
    """Formats the result of `summary` in Markdown: a line an organ and metric.

    Args:
      rows: of which a table of Dice follows, a line a case.
    """
    lines = [
        [
            "Organ",
            "Metric",
            f"Mean ± deviation [{CONFIDENCE:.0%} interval]",
            "n",
            "Undefined",
            "With penalty",
        ]
    ]
    spreads = []
    for organ, of_organ in numbers.items():
        for metric, spread in of_organ.items():
            spreads.append(spread)
            text, _, _ = spread_text(spread, metric).partition(", n=")
            missed = penalty_text(spread, metric).strip(" ()")
            lines.append(
                [
                    organ,
                    metric,
                    text,
                    str(spread["n"]),
                    str(spread["undefined"]),
                    missed,
                ]
            )
    text = grid(lines)
    if note := reliability(min((s["n"] for s in spreads if s["n"]), default=0)):
        text += f"\n{note}\n"
    if any(spread["penalised"] for spread in spreads):
        text += (
            "\nWith penalty: a distance that is undefined because one of the two label "
            "maps lacks the organ counts as the diagonal of the image.\n"
        )
    if by_id := _dice_by_case(rows):
        organs = list(dict.fromkeys(o for of_case in by_id.values() for o in of_case))
        cases = [
            [c, *(of_case.get(o, "-") for o in organs)] for c, of_case in by_id.items()
        ]
        text += f"\nDice of the {len(by_id)} cases:\n\n"
        text += grid([["Case", *organs], *cases])
    return text


# What a terminal shows of each organ; the files have all.
SHOWN = ("dice", "surface_distance_mm", "hausdorff95_mm", "surface_dice_2mm")


def short_summary(numbers: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Formats mean ± deviation of a few metrics in columns: a line an organ.

    `n` is that of the Dice; a number over fewer cases has its own behind it.
    """
    shown = [m for m in SHOWN if any(m in of_organ for of_organ in numbers.values())]
    lines = [["organ", "n", *shown]]
    for organ, of_organ in numbers.items():
        n = of_organ["dice"]["n"] if "dice" in of_organ else 0
        cells = [_short(of_organ[m], m, n) if m in of_organ else "-" for m in shown]
        lines.append([organ, str(n), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _short(spread: Mapping, metric: str, n: int) -> str:
    if spread["mean"] is None:
        return "-"
    places = decimals(metric)
    text = f"{spread['mean']:.{places}f} ± {spread['std']:.{places}f}"
    return text if spread["n"] == n else f"{text} (n={spread['n']})"


def _dice_by_case(rows: Iterable[Mapping]) -> dict[str, dict[str, str]]:
    rows = list(rows)
    found: dict[str, dict[str, str]] = {row["case_id"]: {} for row in rows}
    for organ, of_organ in by_organ(rows).items():
        for case, value in by_case(of_organ, organ, "dice").items():
            found[case][organ] = "-" if value is None else f"{value:.3f}"
    return found
