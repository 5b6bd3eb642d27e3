r"""Prints sheets as LaTeX: booktabs rules, siunitx columns that align at ±.

A number stands in its line, its interval and n in a small line below. What is no number
is in braces, as siunitx wants it. The preamble needs

    \usepackage{booktabs, siunitx}
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from attunet_jax.evaluate.tables.formats import heading, name_of, sheets_of
from attunet_jax.evaluate.tables.sheets import Cell, Sheet, main_sheet

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
}


def to_latex(table: Mapping) -> str:
    """Formats the table, the comparisons and the footnotes."""
    sheets = [main_sheet(table, paper_apart=True), *sheets_of(table)]
    # LaTeX numbers its tables itself.
    _, _, title = heading(table).partition(": ")
    return latex(title, name_of(table), sheets, table["footnotes"])


def latex(title: str, label: str, sheets: Iterable[Sheet], notes: Iterable[str]) -> str:
    r"""Formats each sheet as a `table` of its own; `label` is that of \ref."""
    parts = [
        "% Needs \\usepackage{booktabs, siunitx}.\n"
        "\\sisetup{separate-uncertainty = true, detect-weight = true}\n"
    ]
    for sheet in sheets:
        name = f"{title}. {sheet.name}" if sheet.name else title
        ending = f":{sheet.name.lower()}" if sheet.name else ""
        parts.append(
            "\\begin{table}\n"
            "\\centering\n"
            f"\\caption{{{escaped(name)}}}\n"
            f"\\label{{tab:{label}{ending}}}\n"
            f"{_tabular(sheet.lines)}"
            "\\end{table}\n"
        )
    items = "".join(f"\\item {escaped(note)}\n" for note in notes)
    parts.append(f"\\begin{{itemize}}\\footnotesize\n{items}\\end{{itemize}}\n")
    return "\n".join(parts)


def escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _tabular(lines: Sequence[Sequence[Cell]]) -> str:
    columns = "".join(
        _column([line[i] for line in lines[1:]]) for i in range(len(lines[0]))
    )
    first = " & ".join(f"{{{escaped(cell.text)}}}" for cell in lines[0])
    body = "".join(_line(line) for line in lines[1:])
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{first} \\\\\n\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _line(line: Sequence[Cell]) -> str:
    text = " & ".join(_main(cell) for cell in line) + " \\\\\n"
    if any(cell.more for cell in line):
        below = [
            f"{{\\scriptsize {escaped(cell.more)}}}" if cell.more else ""
            for cell in line
        ]
        text += " & ".join(below) + " \\\\\n"
    return text


def _main(cell: Cell) -> str:
    if not cell.is_number:
        text = escaped(cell.text)
        return f"{{\\bfseries {text}}}" if cell.bold else f"{{{text}}}"
    number = cell.text.replace("±", "\\pm").lstrip("+")
    return f"\\bfseries {number}" if cell.bold else number


def _column(cells: Sequence[Cell]) -> str:
    """Returns `S[table-format=1.3(3)]` with room for the numbers, `l` for words."""
    numbers = [cell.text for cell in cells if cell.is_number]
    if not numbers:
        return "l"
    whole = places = spread = 0
    sign = ""
    for text in numbers:
        mean, *std = re.findall(r"[-+]?\d+(?:\.\d+)?", text)
        sign = "-" if mean.startswith("-") else sign
        before, _, after = mean.lstrip("+-").partition(".")
        whole, places = max(whole, len(before)), max(places, len(after))
        if std:
            spread = max(spread, len(std[0].replace(".", "").lstrip("0")), 1)
    room = f"({spread})" if spread else ""
    return f"S[table-format={sign}{whole}.{places}{room}]"
