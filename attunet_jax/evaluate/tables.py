"""Evaluated networks go in; a table of the paper, its figures beside ours, comes out.

Everything here is a pure function: `table` builds a JSON-ready dict, and
table_text.py writes it as Markdown, CSV and JSON.

A table as tables.py builds it goes in; Markdown, CSV or JSON text comes out.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from attunet_jax.evaluate.paper_tables import (
    COMPARED,
    TABLES,
    Entry,
    Figure,
    PaperTable,
    Quantity,
)
from attunet_jax.evaluate.statistics import CONFIDENCE, PairedTest, paired_test
from attunet_jax.evaluate.summary import spread_text, summary

SIGNIFICANT = 0.05
LOWER_IS_BETTER = {"surface_distance_mm", "hausdorff95_mm"}


@dataclass(frozen=True)
class Result:
    """One evaluated network: what a table needs to know of it."""

    rows: Sequence[Mapping]  # of cases.jsonl: case_id, organ, metrics
    parameters: int | None
    inference_s: float | None
    train_cases: int | None
    note: str  # what a reader must know of this run alone; may be empty

    @property
    def test_cases(self) -> int:
        return len({row["case_id"] for row in self.rows})


def table(
    number: int,
    results: Mapping[tuple[str, str], Result],
    *,
    data: str,
    inference: str,
    seed: int,
) -> dict:
    """One of the paper's tables, filled with ours as far as there is one.

    Args:
      number: 1, 2 or 3.
      results: (network, split) -> Result, by the names of the configs and splits;
        in Table 3 the "splits" are bft, aft and scr. Keys that the table has no
        place for raise KeyError.
      data: what was tested on, for the footnote.
      inference: shape and device of the inference time, for the footnote.
      seed: of the bootstrap intervals.

    Returns:
      number, title, corner, entries_are_columns; `entries` (each network: label,
      paper_label, note, ...); `quantities` (label, organ, metric, and for each entry
      a cell with ours {mean, std, n, undefined, better} and the paper's {mean, std,
      bold}, either None where there is none); `tests`, one for each pair of compared
      networks and quantity; `footnotes`.
    """
    paper = TABLES[number]
    places = {(entry.network, entry.split) for entry in paper.entries}
    if strangers := results.keys() - places:
        raise KeyError(f"table {number} has no place for {sorted(strangers)}")
    summaries = {key: summary(result.rows) for key, result in results.items()}
    quantities = _with_further_organs(paper, summaries)
    tests = [
        test
        for split in dict.fromkeys(entry.split for entry in paper.entries)
        for test in _tests(quantities, results, split, seed)
    ]
    best = {(t["better"], t["split"], t["organ"], t["metric"]) for t in tests}

    def cell(quantity: Quantity, entry: Entry, figure: Figure | None) -> dict:
        key = entry.network, entry.split
        ours = None
        if key in results:
            ours = _ours(quantity, results[key], summaries[key])
        if ours:
            ours["better"] = (*key, quantity.organ, quantity.metric) in best
        return {"ours": ours, "paper": asdict(figure) if figure else None}

    return {
        "number": number,
        "title": paper.title,
        "corner": paper.corner,
        "entries_are_columns": paper.entries_are_columns,
        "entries": [
            _entry(e, results.get((e.network, e.split))) for e in paper.entries
        ],
        "quantities": [
            asdict(quantity)
            | {
                "cells": [
                    cell(quantity, entry, _printed(paper, quantity, entry))
                    for entry in paper.entries
                ]
            }
            for quantity in quantities
        ],
        "tests": tests,
        "footnotes": _footnotes(paper, results, data=data, inference=inference),
    }


def _with_further_organs(
    paper: PaperTable, summaries: Mapping[tuple, Mapping[str, Mapping]]
) -> list[Quantity]:
    """The paper's quantities, and in Table 1 the Dice of every other organ."""
    if not paper.entries_are_columns:
        return list(paper.quantities)
    known = {quantity.organ for quantity in paper.quantities}
    further = {organ for figures in summaries.values() for organ in figures} - known
    organs = [q for q in paper.quantities if q.organ]
    rest = [q for q in paper.quantities if not q.organ]
    return [*organs, *(_dice_of(organ) for organ in sorted(further)), *rest]


def _dice_of(organ: str) -> Quantity:
    name = organ.replace("_", " ")
    return Quantity(f"{name[:1].upper()}{name[1:]} DSC", organ, "dice")


def _printed(paper: PaperTable, quantity: Quantity, entry: Entry) -> Figure | None:
    if quantity not in paper.quantities:
        return None
    return entry.figures[paper.quantities.index(quantity)]


def _ours(quantity: Quantity, result: Result, figures: Mapping) -> dict | None:
    if not quantity.organ:
        value = getattr(result, quantity.metric)
        return None if value is None else {"mean": value, "std": None}
    spread = figures.get(quantity.organ, {}).get(quantity.metric)
    return None if spread is None else dict(spread)


def _entry(entry: Entry, result: Result | None) -> dict:
    described = {
        "network": entry.network,
        "split": entry.split,
        "paper_split": entry.paper_split,
    }
    if result is None:
        return described | {
            "label": f"{entry.label} (-)",
            "train_cases": None,
            "test_cases": None,
            "note": "",
        }
    train = "?" if result.train_cases is None else result.train_cases
    return described | {
        "label": f"{entry.label} ({train}/{result.test_cases})",
        "train_cases": result.train_cases,
        "test_cases": result.test_cases,
        "note": result.note,
    }


def _tests(
    quantities: Sequence[Quantity],
    results: Mapping[tuple[str, str], Result],
    split: str,
    seed: int,
) -> list[dict]:
    """The compared networks against each other, where both were evaluated."""
    first, second = COMPARED
    if (first, split) not in results or (second, split) not in results:
        return []
    tests = []
    for quantity in quantities:
        if not quantity.organ:
            continue
        test = paired_test(
            results[first, split].rows,
            results[second, split].rows,
            organ=quantity.organ,
            metric=quantity.metric,
            seed=seed,
        )
        if test.n:
            tests.append(
                {
                    "label": quantity.label,
                    "organ": quantity.organ,
                    "metric": quantity.metric,
                    "split": split,
                    "first": first,
                    "second": second,
                    **asdict(test),
                    "why_not": test.why_not,
                    "better": _better(test, quantity.metric, first, second),
                }
            )
    return tests


def _better(test: PairedTest, metric: str, first: str, second: str) -> str | None:
    if test.p is None or test.p >= SIGNIFICANT or not test.mean_difference:
        return None
    higher_is_second = test.mean_difference > 0
    return second if higher_is_second != (metric in LOWER_IS_BETTER) else first


def _footnotes(
    paper: PaperTable,
    results: Mapping[tuple[str, str], Result],
    *,
    data: str,
    inference: str,
) -> list[str]:
    notes = [
        f"Ours: {data}. The paper's figures, in brackets: {paper.data}. Figures on "
        "other scans are not comparable as they stand.",
        "Training/test cases stand behind each network's name. Mean ± population "
        "standard deviation over the test cases.",
        "S2S: mean of the two one-way area-weighted mean distances between the label "
        "maps' surfaces, in 3-D; undefined where truth or prediction lacks the organ, "
        "and then left out of the mean (n=... says so). An organ that one of the two "
        "lacks has Dice 0.",
        "Bold: better than the other network of the same split, "
        f"p < {SIGNIFICANT} by the two-sided Wilcoxon signed-rank test on paired "
        "cases, not corrected for the number of comparisons. The paper's bold figures "
        "are the paper's (it names no test).",
        f"Inference time: {inference}. The paper's: a forward pass of 160x160x96 on "
        "a GPU it does not name.",
    ]
    for entry in paper.entries:
        result = results.get((entry.network, entry.split))
        if result and result.note:
            notes.append(f"{_entry(entry, result)['label']}: {result.note}")
    return notes


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
        parts.append(_tests_text(table))
    parts.append("".join(f"- {note}\n" for note in table["footnotes"]))
    return "\n".join(parts)


def _name(entry: Mapping) -> str:
    """`U-Net (24/6; paper 120/30)`: training/test cases."""
    return f"{entry['label'].removesuffix(')')}; paper {entry['paper_split']})"


def _tests_text(table: Mapping) -> str:
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
    return [_ours_text(cell["ours"], metric), _paper(cell["paper"], metric)]


def _ours_text(ours: Mapping | None, metric: str) -> str:
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
