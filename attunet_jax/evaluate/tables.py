"""Fills a table of the paper with our results; writes it as Markdown, CSV and JSON.

`table` builds a JSON-ready dict; `to_markdown`, `to_csv` and `to_json` format it.
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
    Number,
    PaperTable,
    Quantity,
)
from attunet_jax.evaluate.statistics import CONFIDENCE, PairedTest, paired_test
from attunet_jax.evaluate.summary import over_seeds, spread_text, summary

SIGNIFICANT = 0.05
LOWER_IS_BETTER = {"surface_distance_mm", "hausdorff95_mm"}

# (network, split) -> ...
Key = tuple[str, str]
# Organ -> metric -> {mean, std, n, undefined}, as `summary` returns it.
Summary = Mapping[str, Mapping[str, Mapping]]


@dataclass(frozen=True)
class Result:
    """What a table needs to know of one evaluated network."""

    rows: Sequence[Mapping]  # of cases.jsonl: case_id, organ, metrics
    parameters: int | None
    inference_s: float | None
    train_cases: int | None
    note: str  # a remark on this run alone, for the footnotes; may be empty
    folds: int = 1  # how many networks' held-out cases `rows` puts together

    @property
    def test_cases(self) -> int:
        return len({row["case_id"] for row in self.rows})


def table(
    number: int,
    results: Mapping[Key, Result],
    *,
    data: str,
    inference: str,
    seed: int,
    paper: bool = True,
    remarks: Sequence[str] = (),
    added: Mapping[Key, Result] | None = None,
) -> dict:
    """Fills one of the paper's tables with our results.

    Networks without a result and organs without a row in any result are left out.
    Where rows have a `seed`, a network was trained once with each: its scores of a
    case are averaged over the seeds before anything else.

    Args:
      number: 1, 2, 3 or 4.
      results: (network, split) -> Result, by the names of the configs and splits;
        in Table 3 the "splits" are bft, aft and scr, in Table 4 5_fold, whose rows
        are those of all folds.
      data: what was tested on, for the heading.
      inference: shape and device of the inference time, for the footnote.
      seed: of the bootstrap intervals.
      paper: whether the paper's numbers stand beside ours. They should not where they
        are not comparable, say for phantoms.
      remarks: further footnotes.
      added: (name, split) -> Result of networks that the paper's table has not, say
        somebody else's label maps of the split's test cases.

    Returns:
      number, title, data, corner, entries_are_columns, paper; `entries` (each network:
      label, paper_split, note, ...); `quantities` (label, organ, metric, and for each
      entry
      a cell with ours {mean, std, n, undefined, better} and the paper's {mean, std,
      bold}, either None where there is none); `tests`, one for each pair of compared
      networks and quantity; `footnotes`.

    Raises:
      KeyError: the paper's table has no such network and split.
    """
    printed, added = TABLES[number], added or {}
    if unknown := results.keys() - {(e.network, e.split) for e in printed.entries}:
        raise KeyError(f"table {number} has no entry for {sorted(unknown)}")
    entries = [e for e in printed.entries if (e.network, e.split) in results]
    entries += [Entry(*key, label=key[0], paper_split="-", numbers=()) for key in added]
    results = {**results, **added}
    summaries = {key: summary(result.rows) for key, result in results.items()}
    quantities = _quantities(printed, summaries)
    tests = [
        test
        for split in printed.splits
        for test in _tests(quantities, results, split, seed)
    ]
    best = {(t["better"], t["split"], t["organ"], t["metric"]) for t in tests}

    def cell(quantity: Quantity, entry: Entry) -> dict:
        key = entry.network, entry.split
        ours = _ours(quantity, results[key], summaries[key])
        if ours:
            ours["better"] = (*key, quantity.organ, quantity.metric) in best
        theirs = _paper_number(printed, quantity, entry) if paper else None
        return {"ours": ours, "paper": asdict(theirs) if theirs else None}

    return {
        "number": number,
        "title": printed.title,
        "data": data,
        "corner": printed.corner,
        "entries_are_columns": printed.entries_are_columns,
        "paper": paper,
        "entries": [_entry(e, results[e.network, e.split]) for e in entries],
        "quantities": [
            asdict(quantity) | {"cells": [cell(quantity, entry) for entry in entries]}
            for quantity in quantities
        ],
        "published": [asdict(method) for method in printed.published if paper],
        "tests": tests,
        "footnotes": [
            *remarks,
            *_footnotes(printed, results, data, inference, paper),
        ],
    }


def _quantities(
    printed: PaperTable, summaries: Mapping[Key, Summary]
) -> list[Quantity]:
    """The paper's quantities of organs that occur; in Table 1 Dice of other organs."""
    found = {organ for of_result in summaries.values() for organ in of_result}
    of_organs = [q for q in printed.quantities if q.organ in found]
    of_network = [q for q in printed.quantities if not q.organ]
    more = []
    if printed.entries_are_columns:
        more = sorted(found - {quantity.organ for quantity in of_organs})
    return [*of_organs, *map(_dice_of, more), *of_network]


def _dice_of(organ: str) -> Quantity:
    name = organ.replace("_", " ")
    return Quantity(f"{name[:1].upper()}{name[1:]} DSC", organ, "dice")


def _paper_number(
    printed: PaperTable, quantity: Quantity, entry: Entry
) -> Number | None:
    if quantity not in printed.quantities or not entry.numbers:
        return None
    return entry.numbers[printed.quantities.index(quantity)]


def _ours(quantity: Quantity, result: Result, numbers: Summary) -> dict | None:
    if not quantity.organ:
        value = getattr(result, quantity.metric)
        return None if value is None else {"mean": value, "std": None}
    spread = numbers.get(quantity.organ, {}).get(quantity.metric)
    return None if spread is None else dict(spread)


def _entry(entry: Entry, result: Result) -> dict:
    train = "?" if result.train_cases is None else result.train_cases
    return {
        "network": entry.network,
        "split": entry.split,
        "paper_split": entry.paper_split,
        "label": f"{entry.label} ({train}/{result.test_cases})",
        "train_cases": result.train_cases,
        "test_cases": result.test_cases,
        "note": result.note,
    }


def _tests(
    quantities: Sequence[Quantity],
    results: Mapping[Key, Result],
    split: str,
    seed: int,
) -> list[dict]:
    """Compares the two networks of a split, if both were evaluated."""
    first, second = COMPARED
    if (first, split) not in results or (second, split) not in results:
        return []
    tests = []
    for quantity in quantities:
        if not quantity.organ:
            continue
        test = paired_test(
            over_seeds(results[first, split].rows),
            over_seeds(results[second, split].rows),
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
    printed: PaperTable,
    results: Mapping[Key, Result],
    data: str,
    inference: str,
    paper: bool,
) -> list[str]:
    notes = [f"Ours: {data}." if paper else f"Data: {data}."]
    if paper:
        notes[0] += (
            f" The paper's numbers, in brackets: {printed.data}. Numbers on other "
            "scans are not comparable as they stand."
        )
    notes += [
        "Training/test cases stand behind each network's name. Mean ± population "
        "standard deviation over the test cases.",
        "S2S: mean of the two one-way area-weighted mean distances between the label "
        "maps' surfaces, in 3-D; undefined where truth or prediction lacks the organ, "
        "and then left out of the mean (n=... says so). An organ that one of the two "
        "lacks has Dice 0.",
        "Bold: better than the other network of the same split, "
        f"p < {SIGNIFICANT} by the two-sided Wilcoxon signed-rank test on paired "
        "cases, not corrected for the number of comparisons.",
    ]
    if paper:
        notes[-1] += " The paper's bold numbers are the paper's (it names no test)."
    if any(quantity.metric == "inference_s" for quantity in printed.quantities):
        notes.append(f"Inference time: {inference}.")
        if paper:
            notes[-1] += (
                " The paper's: a forward pass of 160x160x96 on a GPU it does not name."
            )
    for entry in printed.entries:
        result = results.get((entry.network, entry.split))
        if result and result.note:
            notes.append(f"{_entry(entry, result)['label']}: {result.note}")
    return notes


def to_json(table: Mapping) -> str:
    """Formats everything, with all digits."""
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def to_csv(table: Mapping) -> str:
    """Formats the table in the paper's shape; the paper's numbers have own columns."""
    quantities = table["quantities"]
    if table["entries_are_columns"]:
        names = [quantity["label"] for quantity in quantities]
        headings = [
            (e["label"], f"paper ({e['paper_split']})") for e in table["entries"]
        ]
        cells = [
            [(quantity["cells"][i], quantity["metric"]) for quantity in quantities]
            for i in range(len(headings))
        ]
    else:
        names = _names(table)
        headings = [(quantity["label"], "paper") for quantity in quantities]
        cells = [[(c, q["metric"]) for c in q["cells"]] for q in quantities]
    columns = [[table["corner"], *names]]
    for (heading, paper_heading), column in zip(headings, cells, strict=True):
        columns.append([heading, *(_our_text(c["ours"], m) for c, m in column)])
        if table["paper"]:
            theirs = [_paper_text(c["paper"], m) for c, m in column]
            columns.append([paper_heading, *theirs])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def to_markdown(table: Mapping) -> str:
    """Formats the table, the paired tests and the footnotes."""
    by_quantity = [
        [q["label"], *(_cell_text(cell, q["metric"]) for cell in q["cells"])]
        for q in table["quantities"]
    ]
    lines = [[table["corner"], *_names(table)], *by_quantity]
    if not table["entries_are_columns"]:
        lines = [list(line) for line in zip(*lines, strict=True)]
    heading = f"## Table {table['number']}: {table['title']}: {table['data']}\n"
    parts = [heading, _grid(lines)]
    if table["published"]:
        parts.append(_published_text(table))
    if table["tests"]:
        parts.append(_tests_text(table))
    parts.append("".join(f"- {note}\n" for note in table["footnotes"]))
    return "\n".join(parts)


def _published_text(table: Mapping) -> str:
    lines = [["Published method", "Data", "Pancreas DSC", "Train/Test", "Folds"]]
    for method in table["published"]:
        dice = _paper_text(method["dice"], "dice")
        lines.append(
            [
                method["label"],
                method["data"],
                dice,
                method["paper_split"],
                method["folds"],
            ]
        )
    return _grid(lines)


def _names(table: Mapping) -> list[str]:
    """`U-Net (24/6; paper 120/30)`, training/test cases, for each entry."""
    if not table["paper"]:
        return [entry["label"] for entry in table["entries"]]
    return [
        f"{entry['label'].removesuffix(')')}; paper {entry['paper_split']})"
        for entry in table["entries"]
    ]


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


def _cell_text(cell: Mapping, metric: str) -> str:
    """`**0.612 ± 0.110** (paper 0.814 ± 0.116)`."""
    text = _our_text(cell["ours"], metric)
    if cell["ours"] and cell["ours"].get("better"):
        text = f"**{text}**"
    if cell["paper"]:
        bold = "**" if cell["paper"]["bold"] else ""
        text += f" (paper {bold}{_paper_text(cell['paper'], metric)}{bold})"
    return text


def _our_text(ours: Mapping | None, metric: str) -> str:
    if ours is None or ours["mean"] is None:
        return "-"
    if metric == "parameters":
        return f"{ours['mean']:,}"
    return f"{ours['mean']:.3f} s" if metric == "inference_s" else spread_text(ours)


def _paper_text(paper: Mapping | None, metric: str) -> str:
    if paper is None:
        return "-"
    if metric == "parameters":
        return f"{paper['mean'] / 1e6:.2f} M"
    if metric == "inference_s":
        return f"{paper['mean']:.3f} s"
    return f"{paper['mean']:.3f} ± {paper['std']:.3f}"
