"""Footnotes that say what the numbers of a table are, and what they do not show."""

from collections.abc import Collection, Iterable, Mapping

from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.statistics.intervals import CONFIDENCE
from attunet_jax.evaluate.statistics.paired import LEVEL, MIN_PAIRS, POWER
from attunet_jax.evaluate.statistics.scores import ERRORS, metric_label
from attunet_jax.evaluate.summary import reliability

_INTERVALS = {
    "t": "Student's t",
    "bca": "BCa bootstrap over cases",
}


def notes_on_statistics(
    spreads: Iterable[Mapping | None], tables: Mapping, metrics: Collection[str]
) -> list[str]:
    """Explains what is printed, and nothing else.

    Args:
      spreads: the numbers of networks, as `summary` gives them.
      tables: `interval`, `comparisons`, `seeds` and `ranks`.
      metrics: the metrics that are printed.
    """
    shown = [spread for spread in spreads if spread]
    over = "test cases"
    if tables["seeds"]:
        over += " of each case's mean over the seeds; the table of seeds has the rest"
    notes = [
        f"Mean ± population standard deviation over the {over} [{CONFIDENCE:.0%} "
        f"interval of the mean: {_INTERVALS[tables['interval']]}], n cases."
    ]
    counts = [spread["n"] for spread in shown if spread["n"]]
    counts += [comparison["n"] for comparison in tables["comparisons"]]
    if counts and (note := reliability(min(counts))):
        notes.append(note)
    notes += [
        f"{metric_label(name)}: {metric.definition}."
        for name, metric in METRICS.items()
        if name in metrics
    ]
    if any(spread["undefined"] for spread in shown):
        notes.append(
            "Undefined scores are left out of the mean. Missed: one of the two label "
            "maps lacks the organ; the mean in brackets counts its distances as the "
            "diagonal of the image."
        )
    if ERRORS & set(metrics) and tables["comparisons"]:
        notes.append("Volume errors are compared by their absolute values.")
    if tables["comparisons"]:
        notes += _on_comparisons(len(tables["comparisons"]))
    if tables["seeds"]:
        notes.append(
            "Seeds: the variance of the scores split into cases, seeds and the rest "
            "(two-way random effects, analysis of variance); the interval there is "
            "that of the mean over new cases and new trainings, all others that over "
            "new cases."
        )
    if tables["ranks"]:
        notes.append(
            "Ranks by the mean, 1 is the best; their intervals: bootstrap over cases"
            + (" and seeds." if tables["seeds"] else "; trainings were not repeated.")
        )
    return notes


def _on_comparisons(count: int) -> list[str]:
    return [
        "Differences: paired, case by case; their interval as above. p: two-sided "
        f"Wilcoxon signed-rank test; Holm: corrected for the {count} comparisons here. "
        'P(false): the probability that the claim "the second is better" is false '
        f"(Student's t of the pairs). Detectable: the smallest mean difference that so "
        f"many pairs, spread like these, show with a power of {POWER} at {LEVEL}.",
        f"Bold and better: the interval leaves out 0, from {MIN_PAIRS} pairs on.",
    ]
