"""Lays numbers out in lines and columns; Markdown, CSV and LaTeX only print them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attunet_jax.evaluate.statistics.intervals import CONFIDENCE
from attunet_jax.evaluate.statistics.scores import decimals
from attunet_jax.evaluate.summary import spread_text


@dataclass(frozen=True)
class Cell:
    """`0.612 ± 0.110` and, after it or below it, `[0.570, 0.654], n=30`."""

    text: str
    more: str = ""
    bold: bool = False
    is_number: bool = False  # `text` is a number, or two with ± between them

    def whole(self) -> str:
        if not self.more:
            return self.text
        return f"{self.text}{' ' if self.more[0] in '[(' else ', '}{self.more}"


@dataclass(frozen=True)
class Sheet:
    """Lines of cells; the first is the heading, and its cells name the columns."""

    name: str
    lines: Sequence[Sequence[Cell]]


def words(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def main_sheet(table: Mapping, *, paper_apart: bool) -> Sheet:
    """Returns the table in the paper's shape.

    Args:
      table: of `build.table`.
      paper_apart: whether the paper's numbers get columns (Table 1) or lines of their
        own. Otherwise they stand in brackets in our cells.
    """
    quantities, has_folds = table["quantities"], table["folds"]
    apart = table["paper"] and (paper_apart or has_folds)
    lines = [words(table["corner"], *(q["label"] for q in quantities))]
    more = [words("Data", "Train/Test", "Folds")]
    for method in table["published"]:
        cells = [_published(method, q) for q in quantities]
        lines.append([Cell(method["label"]), *cells])
        more.append(words(method["data"], method["paper_split"], method["folds"]))
    for i, entry in enumerate(table["entries"]):
        ours = [(q["cells"][i]["ours"], q["metric"]) for q in quantities]
        theirs = [(q["cells"][i]["paper"], q["metric"]) for q in quantities]
        has_paper = any(number for number, _ in theirs)
        cells = [_ours(*pair) for pair in ours]
        if table["paper"] and not apart:
            cells = [
                _with_paper(cell, *pair)
                for cell, pair in zip(cells, theirs, strict=True)
            ]
        of_paper = [
            Cell(f"{entry['name']}, paper ({entry['paper_split']})"),
            *(_paper(*pair) for pair in theirs),
        ]
        if apart and has_paper:
            lines.append(of_paper)
            more.append(words("CT-82", "-", entry["paper_split"]))
        in_name = table["paper"] and has_paper and not apart
        lines.append([Cell(_name(entry, in_name)), *cells])
        more.append(words(table["data"], entry["train_test"], entry["folds"]))
    if has_folds:  # as printed: data, scores, cases, folds
        lines = [
            [line[0], extra[0], *line[1:], *extra[1:]]
            for line, extra in zip(lines, more, strict=True)
        ]
    if table["entries_are_columns"]:
        lines = [list(line) for line in zip(*lines, strict=True)]
    return Sheet("", lines)


def comparison_sheet(
    comparisons: Sequence[Mapping], names: Mapping[tuple[str, str], str]
) -> Sheet:
    """Returns a line for each pair of networks, organ and metric.

    Args:
      names: (network, split) -> what it is called; the split may be "".
    """
    interval = f"[{CONFIDENCE:.0%} interval]"
    lines = [
        words(
            "Paired difference",
            "Quantity",
            f"Mean {interval}",
            "p",
            "p (Holm)",
            "P(false)",
            "Detectable",
            "Better",
            "Pairs",
        )
    ]
    for c in comparisons:
        split, places = c.get("split", ""), decimals(c["metric"])
        first, second = (names[c[which], split] for which in ("first", "second"))
        difference = Cell(f"{c['mean_difference']:+.{places}f}", is_number=True)
        more = ""
        if c["low"] is not None:
            more = f"[{c['low']:+.{places}f}, {c['high']:+.{places}f}]"
        if c["penalised_difference"] is not None:
            missed = c["penalised_n"] - c["n"]
            value = f"{c['penalised_difference']:+.{places}f}"
            more += f"{' ' * bool(more)}({value} with {missed} missed)"
        pairs = str(c["n"]) + f", {c['undefined']} undefined" * bool(c["undefined"])
        lines.append(
            [
                Cell(f"{second} - {first}"),
                Cell(c["label"]),
                Cell(
                    difference.text, more, bold=c["better"] is not None, is_number=True
                ),
                Cell(_p_text(c["p"])),
                Cell(_p_text(c["p_holm"])),
                Cell(_p_text(c["false_claim"])),
                Cell(_number(c["detectable"], places)),
                Cell(names[c["better"], split] if c["better"] else "-"),
                Cell(pairs),
            ]
        )
    return Sheet("Comparisons", lines)


def seed_sheet(seeds: Sequence[Mapping], names: Mapping[tuple[str, str], str]) -> Sheet:
    """Returns a line for each network with several seeds, organ and metric."""
    lines = [
        words(
            "Network",
            "Quantity",
            f"Mean [{CONFIDENCE:.0%} interval, cases and seeds]",
            "Deviation of cases",
            "Deviation of seeds",
            "Rest",
            "Mean of each seed",
            "Cases",
        )
    ]
    for s in seeds:
        places = decimals(s["metric"])
        mean, low, high, cases, of_seeds, rest = (
            f"{s[key]:.{places}f}"
            for key in ("mean", "low", "high", "std_cases", "std_seeds", "std_rest")
        )
        each = ", ".join(f"{mean:.{places}f}" for mean in s["seed_means"].values())
        left_out = f", {s['left_out']} undefined" * bool(s["left_out"])
        lines.append(
            [
                Cell(names[s["network"], s.get("split", "")]),
                Cell(s["label"]),
                Cell(mean, f"[{low}, {high}]", is_number=True),
                *words(cases, of_seeds, rest, each, f"{s['n']}{left_out}"),
            ]
        )
    return Sheet("Seeds", lines)


def rank_sheet(ranks: Sequence[Mapping], names: Mapping[tuple[str, str], str]) -> Sheet:
    """Returns a line for each network, organ and metric."""
    lines = [words("Quantity", "Network", f"Rank [{CONFIDENCE:.0%} interval]", "Cases")]
    lines += [
        words(
            r["label"],
            names[r["network"], r.get("split", "")],
            f"{r['rank']:g} [{r['low']:g}, {r['high']:g}]",
            str(r["n"]),
        )
        for r in ranks
    ]
    return Sheet("Ranks", lines)


def sheets_of_statistics(
    tables: Mapping, names: Mapping[tuple[str, str], str]
) -> list[Sheet]:
    """Returns the sheets of comparisons, seeds and ranks that have a line."""
    makers = {
        "comparisons": comparison_sheet,
        "seeds": seed_sheet,
        "ranks": rank_sheet,
    }
    return [make(tables[key], names) for key, make in makers.items() if tables[key]]


def spread_cell(spread: Mapping | None, metric: str) -> Cell:
    """Returns `0.612 ± 0.110` with its interval and n."""
    if spread is None or not spread["n"] + spread["undefined"]:
        return Cell("-")
    text = spread_text(spread, metric)
    mean, _, rest = text.partition(", n=")
    mean, bracket, interval = mean.partition(" [")
    return Cell(
        mean,
        f"{bracket.strip()}{interval}{', ' * bool(bracket)}n={rest}",
        bold=bool(spread.get("better")),
        is_number=spread["mean"] is not None,
    )


def _name(entry: Mapping, with_paper: bool) -> str:
    """`U-Net (24/6)` or `U-Net (24/6; paper 120/30)`, training/test cases."""
    if not with_paper:
        return entry["label"]
    return f"{entry['label'].removesuffix(')')}; paper {entry['paper_split']})"


def _published(method: Mapping, quantity: Mapping) -> Cell:
    is_printed = (quantity["organ"], quantity["metric"]) == ("pancreas", "dice")
    return _paper(method["dice"] if is_printed else None, "dice")


def _ours(ours: Mapping | None, metric: str) -> Cell:
    if ours is None:
        return Cell("-")
    if metric == "parameters":
        return Cell(f"{ours['mean']:,}")
    if metric == "inference_s":
        return Cell(f"{ours['mean']:.3f} s")
    return spread_cell(ours, metric)


def _paper(paper: Mapping | None, metric: str) -> Cell:
    if paper is None:
        return Cell("-")
    if metric == "parameters":
        return Cell(f"{paper['mean'] / 1e6:.2f} M")
    if metric == "inference_s":
        return Cell(f"{paper['mean']:.3f} s")
    text = f"{paper['mean']:.3f} ± {paper['std']:.3f}"
    return Cell(text, bold=paper["bold"], is_number=True)


def _with_paper(cell: Cell, paper: Mapping | None, metric: str) -> Cell:
    """Puts the paper's number in brackets behind ours."""
    if paper is None:
        return cell
    star = "**" if paper["bold"] else ""
    more = f"(paper {star}{_paper(paper, metric).text}{star})"
    if cell.more:
        more = f"{cell.more} {more}"
    return Cell(cell.text, more, cell.bold, cell.is_number)


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
