"""The paper's tables with our results, as Markdown, CSV, JSON and LaTeX."""

from collections.abc import Mapping

from attunet_jax.evaluate.tables.build import Key, Result, table
from attunet_jax.evaluate.tables.formats import (
    challenge_csv,
    comparisons_csv,
    name_of,
    to_csv,
    to_json,
    to_markdown,
)
from attunet_jax.evaluate.tables.latex import to_latex

__all__ = [
    "Key",
    "Result",
    "table",
    "table_files",
    "name_of",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
]


def table_files(filled: Mapping, results: Mapping[Key, Result]) -> dict[str, str]:
    """Returns the name and content of each file of a table.

    Args:
      filled: what `table` returned.
      results: all that is in it, added networks too.
    """
    name = name_of(filled)
    networks = {
        (entry["name"], entry["split"]): results[entry["network"], entry["split"]].rows
        for entry in filled["entries"]
    }
    quantities = [(q["organ"], q["metric"]) for q in filled["quantities"] if q["organ"]]
    files = {
        f"{name}.md": to_markdown(filled),
        f"{name}.csv": to_csv(filled),
        f"{name}.json": to_json(filled),
        f"{name}.tex": to_latex(filled),
        f"{name}_cases.csv": challenge_csv(networks, quantities),
    }
    if filled["comparisons"]:
        files[f"{name}_comparisons.csv"] = comparisons_csv(filled["comparisons"])
    return files
