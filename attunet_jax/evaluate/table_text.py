"""A table as tables.py builds it goes in; Markdown, CSV or JSON text comes out."""

import csv
import io
import json
from collections.abc import Mapping

from attunet_jax.evaluate.statistics import CONFIDENCE
from attunet_jax.evaluate.summary import spread_text


def to_json(table: Mapping) -> str:
    """Everything, with all digits."""
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def to_csv(table: Mapping) -> str:
    """The table in the paper's shape, each column of ours followed by the paper's."""
    heading = [table["corner"]]
    lines = []
    if table["entries_are_columns"]:
        for entry in table["entries"]:
            heading += [entry["label"], f"paper ({entry['paper_split']})"]
        for quantity in table["quantities"]:
            lines.append([quantity["label"]])
            for cell in quantity["cells"]:
                lines[-1] += _pair(cell, quantity["metric"])
    else:
        for quantity in table["quantities"]:
            heading += [quantity["label"], "paper"]
        for i, entry in enumerate(table["entries"]):
            lines.append([_name(entry)])
            for quantity in table["quantities"]:
                lines[-1] += _pair(quantity["cells"][i], quantity["metric"])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *lines])
    return text.getvalue()


def to_markdown(table: Mapping) -> str:
    """The table, the paired tests and the footnotes."""
    names = [_name(entry) for entry in table["entries"]]
    if table["entries_are_columns"]:
        lines = [[table["corner"], *names]]
        for quantity in table["quantities"]:
            cells = [_both(cell, quantity["metric"]) for cell in quantity["cells"]]
            lines.append([quantity["label"], *cells])
    else:
        quantities = table["quantities"]
        lines = [[table["corner"], *(q["label"] for q in quantities)]]
        for i, name in enumerate(names):
            cells = [_both(q["cells"][i], q["metric"]) for q in quantities]
            lines.append([name, *cells])
    parts = [f"## Table {table['number']}: {table['title']}\n", _grid(lines)]
    if table["tests"]:
        parts.append(_tests(table))
    parts.append("".join(f"- {note}\n" for note in table["footnotes"]))
    return "\n".join(parts)


def _name(entry: Mapping) -> str:
    """`U-Net (24/6; paper 120/30)`: training/test cases."""
    return f"{entry['label'].removesuffix(')')}; paper {entry['paper_split']})"


def _tests(table: Mapping) -> str:
    labels = {(e["network"], e["split"]): e["label"] for e in table["entries"]}
    lines = [
        [
            "Paired difference",
            "Quantity",
            f"Mean [{CONFIDENCE:.0%} interval]",
            "p",
            "Pairs",
        ]
    ]
    for test in table["tests"]:
        first, second = (labels[test[k], test["split"]] for k in ("first", "second"))
        difference = f"{test['mean_difference']:+.3f}"
        if test["p"] is not None:
            difference += f" [{test['low']:+.3f}, {test['high']:+.3f}]"
        p = test["why_not"] or ("< 0.001" if test["p"] < 0.001 else f"{test['p']:.3f}")
        n = str(test["n"])
        lines.append([f"{second} - {first}", test["label"], difference, p, n])
    return _grid(lines)


def _grid(lines: list[list[str]]) -> str:
    heading, *rest = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---"] * len(heading)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heading, rule, *rest))


def _both(cell: Mapping, metric: str) -> str:
    """`**0.612 ± 0.110** (paper 0.814 ± 0.116)`."""
    ours, paper = _pair(cell, metric)
    if cell["ours"] and cell["ours"].get("better"):
        ours = f"**{ours}**"
    if cell["paper"] and cell["paper"]["bold"]:
        paper = f"**{paper}**"
    return f"{ours} (paper {paper})"


def _pair(cell: Mapping, metric: str) -> list[str]:
    return [_ours(cell["ours"], metric), _paper(cell["paper"], metric)]


def _ours(ours: Mapping | None, metric: str) -> str:
    if ours is None or ours["mean"] is None:
        return "-"
    if metric == "parameters":
        return f"{ours['mean']:,}"
    return f"{ours['mean']:.3f} s" if metric == "inference_s" else spread_text(ours)


def _paper(paper: Mapping | None, metric: str) -> str:
    if paper is None:
        return "-"
    if metric == "parameters":
        return f"{paper['mean'] / 1e6:.2f} M"
    if metric == "inference_s":
        return f"{paper['mean']:.3f} s"
    return f"{paper['mean']:.3f} ± {paper['std']:.3f}"
