"""Prints a table, with its comparisons and footnotes, as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from attunet_jax.evaluate.markdown import grid
from attunet_jax.evaluate.statistics.scores import by_case
from attunet_jax.evaluate.tables.sheets import (
    Cell,
    Sheet,
    main_sheet,
    sheets_of_statistics,
)


def to_json(table: Mapping) -> str:
    """Formats everything, with all digits."""
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def to_markdown(table: Mapping) -> str:
    """Formats the table, the comparisons and the footnotes."""
    sheets = [main_sheet(table, paper_apart=False), *sheets_of(table)]
    return markdown(heading(table), sheets, table["footnotes"])


def to_csv(table: Mapping) -> str:
    """Formats the table in the paper's shape; the paper's numbers stand apart."""
    return csv_text(
        [cell.whole() for cell in line]
        for line in main_sheet(table, paper_apart=True).lines
    )


def name_of(table: Mapping) -> str:
    """Returns what the files of a table are called: "table1", or its own `name`."""
    return table.get("name") or f"table{table['number']}"


def heading(table: Mapping) -> str:
    return f"Table {table['number']}: {table['title']}: {table['data']}"


def sheets_of(table: Mapping) -> list[Sheet]:
    """Returns comparisons, seeds and ranks, with the names of the table."""
    names = {(e["network"], e["split"]): e["label"] for e in table["entries"]}
    return sheets_of_statistics(table, names)


def markdown(title: str, sheets: Iterable[Sheet], notes: Iterable[str]) -> str:
    parts = [f"## {title}\n"]
    for sheet in sheets:
        if sheet.name:
            parts.append(f"### {sheet.name}\n")
        parts.append(grid([[_marked(cell) for cell in line] for line in sheet.lines]))
    parts.append("".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def _marked(cell: Cell) -> str:
    """`**0.612 ± 0.110** [0.570, 0.654], n=30`."""
    if not cell.bold:
        return cell.whole()
    return f"**{cell.text}**{cell.whole().removeprefix(cell.text)}"


def comparisons_csv(comparisons: Sequence[Mapping]) -> str:
    """Formats comparisons, a line each, with all digits."""
    if not comparisons:
        return ""
    names = list(comparisons[0])
    lines = [["" if c[n] is None else c[n] for n in names] for c in comparisons]
    return csv_text([names, *lines])


def challenge_csv(
    networks: Mapping[tuple[str, str], Sequence[Mapping]],
    quantities: Iterable[tuple[str, str]],
) -> str:
    """Formats scores in the long form of challengeR: task, case, algorithm, value.

    Args:
      networks: (name, split) -> rows; the split may be "".
      quantities: organ and metric of each task. Undefined scores are NA.
    """
    lines: list[list[object]] = [["task", "case", "algorithm", "value"]]
    for organ, metric in quantities:
        for (name, split), rows in networks.items():
            task = " ".join(filter(None, (split, organ, metric)))
            for case, value in by_case(rows, organ, metric).items():
                lines.append([task, case, name, "NA" if value is None else value])
    return csv_text(lines)


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
