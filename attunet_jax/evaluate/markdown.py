"""Formats lines of texts as a table in Markdown."""

from collections.abc import Sequence


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Returns the table; the first line is its heading."""
    heading, *rest = [[_escaped(cell) for cell in line] for line in lines]
    rule = ["---"] * len(heading)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heading, rule, *rest))


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
