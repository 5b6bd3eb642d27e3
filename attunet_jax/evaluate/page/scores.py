"""The page's first words and its tables: means of the networks, and what differs."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.page.names import (
    FIRST,
    heading,
    metrics_in,
    number,
    organ_label,
    organs_in,
)
from attunet_jax.evaluate.page.room import TABLE_BYTES, fitting, left_out_text
from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.evaluate.statistics.comparison import (
    Comparison,
    compare_networks,
    with_holm,
)
from attunet_jax.evaluate.statistics.ranks import MIN_NETWORKS, ranks
from attunet_jax.evaluate.statistics.seeds import has_seeds, spread_of_seeds
from attunet_jax.evaluate.summary import penalty_text, reliability, summary
from attunet_jax.web_page import table

MOST_COMPARED = 1500  # comparisons: of more networks or organs, Dice alone

Networks = Mapping[str, Sequence[Mapping]]
# network -> organ -> metric -> {mean, std, low, high, n, ...}, see `summary`.
Means = Mapping[str, Mapping[str, Mapping[str, Mapping]]]


def means_of(networks: Networks) -> Means:
    """Averages every score by network and organ."""
    metrics = metrics_in(row for rows in networks.values() for row in rows)
    return {name: summary(rows, metrics) for name, rows in networks.items()}


def comparisons(
    networks: Networks, families: Mapping[str, str] | None = None
) -> list[Comparison]:
    """Compares pairs of networks in the page's first metrics, organ by organ.

    Every pair, or those of one family: name -> family.
    """
    metrics = metrics_in(row for rows in networks.values() for row in rows)
    metrics = [metric for metric in metrics if metric in FIRST]
    organs = organs_in(networks)
    pairs = len(networks) * (len(networks) - 1) // 2
    if pairs * len(organs) * len(metrics) > MOST_COMPARED:
        metrics = metrics[:1]
    families = families or dict.fromkeys(networks, "")
    return with_holm(
        [
            comparison
            for family in dict.fromkeys(families.values())
            for comparison in compare_networks(
                {n: rows for n, rows in networks.items() if families.get(n) == family},
                organs=organs,
                metrics=metrics,
            )
        ]
    )


def means_section(networks: Networks, means: Means) -> str:
    """Returns a table for each organ: a row a metric, a column a network."""
    every = [row for rows in networks.values() for row in rows]
    metrics = metrics_in(every)
    parts, left_out, _ = fitting(
        _mean_tables(means, organs_in(networks), metrics), TABLE_BYTES
    )
    definitions = "".join(
        f"<dt>{escape(heading(m))}<dd>{escape(METRICS[m].definition)}. Better: "
        f"{METRICS[m].better}.\n"
        for m in metrics
    )
    return (
        "<h2 id=scores>Scores</h2>\n"
        "<p class=note>Mean ± standard deviation over cases [95 % interval of the mean "
        f"by Student’s t], n. {escape(_reliability(means))} "
        f"{escape(scoring_text(every))}"
        "</p>\n"
        + "".join(parts)
        + left_out_text(left_out, "organs are", "cases.jsonl has their scores")
        + "<details><summary>What each score means</summary>"
        f"<dl>{definitions}</dl></details>\n"
    )


def _reliability(means: Means) -> str:
    smallest = [
        spread["n"]
        for of_network in means.values()
        for of_organ in of_network.values()
        for spread in of_organ.values()
        if spread["n"]
    ]
    return reliability(min(smallest)) if smallest else ""


def _mean_tables(
    means: Means, organs: Sequence[str], metrics: Sequence[str]
) -> Iterator[str]:
    head = "<tr><th scope=col>Score" + "".join(
        f"<th scope=col class=number>{escape(name)}" for name in means
    )
    for organ in organs:
        lines = []
        for metric in metrics:
            cells = "".join(
                "<td class=number>"
                + mean_cell(of_network.get(organ, {}).get(metric), metric)
                for of_network in means.values()
            )
            lines.append(f"<tr><th scope=row>{escape(heading(metric))}{cells}")
        name = escape(organ_label(organ))
        kind = "short means many" if len(means) > 2 else "short means"
        yield f'<div class="{kind}"><h3>{name}</h3>\n{table(head, lines)}</div>\n'


def mean_cell(spread: Mapping | None, metric: str) -> str:
    """Returns mean, deviation, interval, n, and what is undefined or penalised."""
    if spread is None:
        return "–"
    if spread["mean"] is None:
        text = f"– <small>n = 0, {spread['undefined']} undefined"
    else:
        text = f"{number(spread['mean'])} ± {number(spread['std'])} <small>"
        if spread["low"] is not None:
            text += f"[{number(spread['low'])}, {number(spread['high'])}] "
        text += f"n = {spread['n']}"
        if spread["undefined"]:
            text += f", {spread['undefined']} undefined"
    return f"{text}{escape(penalty_text(spread, metric))}</small>"


_COLUMNS = (
    ("Networks", "", "second minus first"),
    ("Organ", "", ""),
    ("Score", "", ""),
    ("Difference [95 % interval]", "number", "mean over the pairs, Student’s t"),
    ("Pairs", "number", "cases in which both define the score"),
    ("p", "number", "two-sided Wilcoxon signed-rank test"),
    ("p (Holm)", "number", "corrected for all lines of this table"),
    ("P(false)", "number", "probability that “the second is better” is false"),
    ("Detectable", "number", "smallest difference shown with a power of 0.8"),
    (
        "Better",
        "",
        "where the interval leaves out 0; of many, some do by chance: see p (Holm)",
    ),
)


def comparison_section(found: Sequence[Comparison]) -> str:
    """Returns the table of paired differences; empty without two networks."""
    if not found:
        return ""
    lines, left_out, _ = fitting(map(_line, found), TABLE_BYTES)
    head = "<tr>" + "".join(
        f"<th scope=col{' class=number' if kind else ''}"
        + (f' title="{title}">' if title else ">")
        + name
        for name, kind, title in _COLUMNS
    )
    meant = "".join(f"<dt>{name}<dd>{title}\n" for name, _, title in _COLUMNS if title)
    return (
        "<h2 id=comparisons>Comparisons</h2>\n"
        "<p class=note>Each pair of networks on the same cases, the second minus the "
        "first.</p>\n"
        + table(head, lines, " class=sortable")
        + left_out_text(left_out, "comparisons are", "launch.tables prints all")
        + "<details><summary>What the columns mean</summary>"
        f"<dl>{meant}</dl></details>\n"
    )


def _line(c: Comparison) -> str:
    difference = number(c.mean_difference, signed=True)
    if c.low is not None and c.high is not None:
        low, high = (number(x, signed=True) for x in (c.low, c.high))
        difference += f" [{low}, {high}]"
    claim = f"<span class=claim>{escape(c.better)}</span>" if c.better else "not shown"
    return (
        f"<tr><td>{escape(c.second)} − {escape(c.first)}"
        f"<td class=organ>{escape(organ_label(c.organ))}"
        f"<td class=organ>{escape(heading(c.metric))}"
        f"<td class=number>{difference}<td class=number>{c.n}"
        + "".join(f"<td class=number>{_p(p)}" for p in (c.p, c.p_holm, c.false_claim))
        + f"<td class=number>{number(c.detectable)}<td>{claim}"
    )


def _p(p: float | None) -> str:
    return "–" if p is None else "&lt; 0.001" if p < 0.001 else number(p)


def seed_and_rank_section(networks: Networks) -> str:
    """Returns what seeds make of Dice, and the networks' ranks, where there are any."""
    organs = organs_in(networks)
    seeds = [
        f"<tr><td>{escape(name)}<td>{escape(organ_label(organ))}"
        + "".join(
            f"<td class=number>{text}"
            for text in (
                f"{number(s.mean)} [{number(s.low)}, {number(s.high)}]",
                number(s.std_cases),
                number(s.std_seeds),
                number(s.std_rest),
                f"{s.seeds} × {s.n}",
            )
        )
        for name, rows in networks.items()
        if has_seeds(rows)
        for organ in organs
        if (s := spread_of_seeds(rows, organ, "dice"))
    ]
    places = [
        f"<tr><td>{escape(organ_label(organ))}<td>{escape(one.network)}"
        f"<td class=number>{number(one.rank, 1)} "
        f"[{number(one.low, 1)}, {number(one.high, 1)}]<td class=number>{one.n}"
        for organ in organs
        for one in (ranks(networks, organ, "dice") if len(networks) > 2 else ())
    ]
    html = ""
    if seeds:
        head = _head("Network", "Organ", "#Dice [95 % interval]", "#Deviation of cases")
        head += _head("#of seeds", "#of the rest", "#Seeds × cases").removeprefix(
            "<tr>"
        )
        kept, left_out, _ = fitting(seeds, TABLE_BYTES // 3)
        html += (
            "<h3>Seeds</h3>\n<p class=note>Dice over new cases and new trainings; its "
            "spread by what it comes from.</p>\n"
            + table(head, kept, " class=sortable")
            + left_out_text(left_out, "lines are", "launch.tables prints all")
        )
    if places:
        head = _head("Organ", "Network", "#Rank [95 % interval]", "#Cases")
        kept, left_out, _ = fitting(places, TABLE_BYTES // 3)
        html += (
            f"<h3>Ranks</h3>\n<p class=note>By mean Dice, from {MIN_NETWORKS} networks "
            "on; networks whose intervals overlap are not told apart.</p>\n"
            + table(head, kept, " class=sortable")
            + left_out_text(left_out, "lines are", "launch.tables prints all")
        )
    return html


def _head(*names: str) -> str:
    """Returns a heading row; `#` before a name makes a column of numbers."""
    return "<tr>" + "".join(
        f"<th scope=col{' class=number' if name[0] == '#' else ''}>{name.lstrip('#')}"
        for name in names
    )
