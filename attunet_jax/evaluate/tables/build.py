"""Fills a table of the paper with our results, as a JSON-ready dict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from attunet_jax.evaluate.paper_tables import (
    FOLDS,
    TABLES,
    Entry,
    Number,
    PaperTable,
    Quantity,
)
from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.evaluate.statistics.comparison import (
    Comparison,
    best_of,
    compare_quantities,
    with_holm,
)
from attunet_jax.evaluate.statistics.ranks import ranks
from attunet_jax.evaluate.statistics.scores import label
from attunet_jax.evaluate.statistics.seeds import spread_of_seeds
from attunet_jax.evaluate.summary import summary
from attunet_jax.evaluate.tables.notes import notes_on_statistics

# (network, split) -> ...
Key = tuple[str, str]
# Organ -> metric -> {mean, std, n, ...}, as `summary` returns it.
Summary = Mapping[str, Mapping[str, Mapping]]


@dataclass(frozen=True)
class Result:
    """What a table needs to know of one evaluated network."""

    rows: Sequence[Mapping]  # of cases.jsonl: case_id, organ, metrics, seed
    parameters: int | None
    inference_s: float | None
    train_cases: int | None
    note: str  # a remark on this run alone, for the footnotes; may be empty
    folds: int = 1  # how many networks' held-out cases `rows` puts together

    @property
    def test_cases(self) -> int:
        return len({row["case_id"] for row in self.rows})

    @property
    def seeds(self) -> int:
        return len({row.get("seed") for row in self.rows})


def table(
    number: int,
    results: Mapping[Key, Result],
    *,
    data: str,
    inference: str,
    seed: int = 0,
    paper: bool = True,
    remarks: Sequence[str] = (),
    added: Mapping[Key, Result] | None = None,
    interval: str = "t",
) -> dict:
    """Fills one of the paper's tables with our results.

    Networks without a result and organs without a score in any result are left out.
    Where rows have a `seed`, a network was trained once with each: its scores of a
    case are averaged over the seeds before anything else.

    Args:
      number: 1, 2, 3 or 4.
      results: (network, split) -> Result, by the names of the configs and splits;
        in Table 3 the "splits" are bft, aft and scr, in Table 4 5_fold, whose rows
        are those of all folds.
      data: what was tested on, for the heading.
      inference: shape and device of the inference time, for the footnote.
      seed: of the bootstrap of ranks, and of intervals "bca".
      paper: whether the paper's numbers stand beside ours. They should not where they
        are not comparable, say for phantoms.
      remarks: further footnotes.
      added: (name, split) -> Result of networks that the paper's table has not, say
        somebody else's label maps of the split's test cases.
      interval: "t" (Student's) or "bca" (bootstrap).

    Returns:
      number, title, data, corner, entries_are_columns, paper, folds; `entries` (each
      network: label, paper_split, note, ...); `quantities` (label, organ, metric, and
      for each entry a cell with ours, as `summary` gives it, and whether it is better
      than every other network of its split, and the paper's {mean, std, bold}; either
      is None where there is none); `published`, the methods of Table 4;
      `comparisons`, `Comparison` of each pair of networks of a split and each quantity;
      `seeds`, `Spread` of each network with several; `ranks` of three or more networks
      of a split; `footnotes`.

    Raises:
      KeyError: the paper's table has no such network and split.
    """
    printed, added = TABLES[number], added or {}
    if unknown := results.keys() - {(e.network, e.split) for e in printed.entries}:
        raise KeyError(f"table {number} has no entry for {sorted(unknown)}")
    entries = [e for e in printed.entries if (e.network, e.split) in results]
    entries += [Entry(*key, label=key[0], paper_split="-", numbers=()) for key in added]
    results = {**results, **added}
    keys = [(entry.network, entry.split) for entry in entries]
    summaries = {
        key: summary(results[key].rows, interval=interval, seed=seed) for key in keys
    }
    quantities = _quantities(printed, summaries)
    of_organs = [quantity for quantity in quantities if quantity.organ]
    compared = _comparisons(of_organs, keys, results, interval, seed)
    best = _best(compared, keys)

    def cell(quantity: Quantity, entry: Entry) -> dict:
        key = entry.network, entry.split
        ours = _ours(quantity, results[key], summaries[key])
        if ours:
            ours["better"] = (*key, quantity.organ, quantity.metric) in best
        theirs = _paper_number(printed, quantity, entry) if paper else None
        return {"ours": ours, "paper": asdict(theirs) if theirs else None}

    filled: dict = {
        "number": number,
        "title": printed.title,
        "data": data,
        "corner": printed.corner,
        "entries_are_columns": printed.entries_are_columns,
        "paper": paper,
        "folds": bool(printed.published),
        "interval": interval,
        "entries": [
            _entry(e, results[e.network, e.split], bool(printed.published))
            for e in entries
        ],
        "quantities": [
            asdict(quantity) | {"cells": [cell(quantity, entry) for entry in entries]}
            for quantity in quantities
        ],
        "published": [asdict(method) for method in printed.published if paper],
        "comparisons": [
            {"label": quantity.label, "split": split, **asdict(comparison)}
            for (split, quantity), comparison in compared
        ],
        "seeds": _seeds(of_organs, keys, results),
        "ranks": _ranks(of_organs, keys, results, seed),
    }
    all_rows = [row for key in keys for row in results[key].rows]
    filled["footnotes"] = [
        *remarks,
        *_footnotes(printed, filled, scoring_text(all_rows), inference, paper),
    ]
    return filled


def _quantities(
    printed: PaperTable, summaries: Mapping[Key, Summary]
) -> list[Quantity]:
    """Returns the paper's quantities of organs that have scores.

    In Table 1 Dice of other organs follows. Where none of the paper's organs has a
    score, each that has one gets the quantities of the paper's first, the pancreas.
    """
    found = sorted(
        {
            organ
            for of_result in summaries.values()
            for organ, spreads in of_result.items()
            if any(spread["n"] for spread in spreads.values())
        }
    )
    of_organs = [q for q in printed.quantities if q.organ in found]
    of_network = [q for q in printed.quantities if not q.organ]
    more = []
    if not of_organs:
        first = printed.quantities[0].organ
        metrics = [q.metric for q in printed.quantities if q.organ == first]
        more = [_quantity(organ, metric) for organ in found for metric in metrics]
    elif printed.entries_are_columns:
        known = {quantity.organ for quantity in of_organs}
        more = [_quantity(organ, "dice") for organ in found if organ not in known]
    return [*of_organs, *more, *of_network]


def _quantity(organ: str, metric: str) -> Quantity:
    return Quantity(label(organ, metric), organ, metric)


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


def _entry(entry: Entry, result: Result, has_folds: bool) -> dict:
    test = result.test_cases
    if has_folds:
        test = round(test / result.folds)
    train = "?" if result.train_cases is None else result.train_cases
    split = f"{train}/{test}"
    return {
        "network": entry.network,
        "split": entry.split,
        "paper_split": entry.paper_split,
        "label": entry.label if has_folds else f"{entry.label} ({split})",
        "name": entry.label,
        "train_test": split,
        "folds": _folds(result.folds if entry.numbers else 0) if has_folds else None,
        "train_cases": result.train_cases,
        "test_cases": result.test_cases,
        "seeds": result.seeds,
        "note": result.note,
    }


def _folds(count: int) -> str:
    """`5-CV`, `5-CV, 3 of 5` of an unfinished one, `-` of another's network (0)."""
    if not count:
        return "-"
    return f"{FOLDS}-CV" + f", {count} of {FOLDS}" * (count < FOLDS)


def _comparisons(
    quantities: Sequence[Quantity],
    keys: Sequence[Key],
    results: Mapping[Key, Result],
    interval: str,
    seed: int,
) -> list[tuple[tuple[str, Quantity], Comparison]]:
    """Compares each pair of networks of a split; the whole table is one family."""
    known = {(quantity.organ, quantity.metric): quantity for quantity in quantities}
    found = [
        ((split, known[comparison.organ, comparison.metric]), comparison)
        for split, names in _by_split(keys).items()
        for comparison in compare_quantities(
            {name: results[name, split].rows for name in names},
            known,
            interval=interval,
            seed=seed,
        )
    ]
    family = with_holm([comparison for _, comparison in found])
    return [(where, c) for (where, _), c in zip(found, family, strict=True)]


def _by_split(keys: Iterable[Key]) -> dict[str, list[str]]:
    """Returns the networks of each split: they were tested on the same cases."""
    found: dict[str, list[str]] = {}
    for network, split in keys:
        found.setdefault(split, []).append(network)
    return found


def _best(
    compared: Iterable[tuple[tuple[str, Quantity], Comparison]], keys: Sequence[Key]
) -> set[tuple[str, str, str, str]]:
    """Returns network, split, organ and metric of what is better than all others."""
    compared = list(compared)
    return {
        (network, split, organ, metric)
        for split, names in _by_split(keys).items()
        for network, organ, metric in best_of(
            [c for (of_split, _), c in compared if of_split == split], len(names)
        )
    }


def _seeds(
    quantities: Iterable[Quantity],
    keys: Iterable[Key],
    results: Mapping[Key, Result],
) -> list[dict]:
    several = [key for key in keys if results[key].seeds > 1]
    return [
        {"label": quantity.label, "network": key[0], "split": key[1], **asdict(spread)}
        for quantity in quantities
        for key in several
        if (
            spread := spread_of_seeds(
                results[key].rows, quantity.organ, quantity.metric
            )
        )
    ]


def _ranks(
    quantities: Iterable[Quantity],
    keys: Iterable[Key],
    results: Mapping[Key, Result],
    seed: int,
) -> list[dict]:
    return [
        {"label": quantity.label, "split": split, **asdict(rank)}
        for split, names in _by_split(keys).items()
        for quantity in quantities
        for rank in ranks(
            {name: results[name, split].rows for name in names},
            quantity.organ,
            quantity.metric,
            seed=seed,
        )
    ]


def _footnotes(
    printed: PaperTable, filled: Mapping, scoring: str, inference: str, paper: bool
) -> list[str]:
    notes = [f"{'Ours' if paper else 'Data'}: {filled['data']}."]
    if paper:
        notes[0] += f" The paper's numbers: {printed.data}."
        notes[0] += " Numbers on other scans are not comparable as they stand."
    notes.append(scoring)
    metrics = {quantity["metric"] for quantity in filled["quantities"]}
    if not filled["folds"]:
        notes.append("Training/test cases stand behind each network's name.")
    notes += notes_on_statistics(
        [
            cell["ours"]
            for q in filled["quantities"]
            if q["organ"]
            for cell in q["cells"]
        ],
        filled,
        metrics,
    )
    if paper and filled["comparisons"]:
        notes.append("The paper's bold numbers are the paper's; it names no test.")
    if "inference_s" in metrics:
        notes.append(f"Inference time: {inference}.")
        if paper:
            notes[-1] += (
                " The paper's: a forward pass of 160x160x96 on a GPU it does not name."
            )
    notes += [f"{e['label']}: {e['note']}" for e in filled["entries"] if e["note"]]
    return notes
