"""How an evaluation was scored: its grid and definition, and what compares with it."""

from collections.abc import Iterable, Mapping

import numpy as np

from attunet_jax.evaluate.definitions import DEFINITIONS, GRIDS

# What rows of versions without these keys were scored as.
BEFORE = {"grid": "prepared", "definition": "mesh"}


def scored_as(row: Mapping) -> dict[str, str]:
    """Returns `{"grid", "definition"}` of a row of cases.jsonl, of any version."""
    return {key: str(row.get(key, value)) for key, value in BEFORE.items()}


def scoring_text(rows: Iterable[Mapping]) -> str:
    """Says on which grid the rows were scored, and by which definition: one line."""
    found = [scored_as(row) for row in rows]
    grids = dict.fromkeys(GRIDS.get(f["grid"], f["grid"]) for f in found)
    areas = dict.fromkeys(DEFINITIONS.get(f["definition"], "") for f in found)
    return f"{' and '.join(grids).capitalize()}; {' and '.join(areas)}."


def scored_apart(rows: Iterable[Mapping], others: Iterable[Mapping]) -> str | None:
    """Says in what two evaluations were scored differently, so that they don't compare.

    None where grid, definition and, case by case, spacing are the same. Rows of an
    older version, which know no spacing, pass for that of the others.
    """
    rows, others = list(rows), list(others)
    for key in BEFORE:
        first, second = ({scored_as(row)[key] for row in r} for r in (rows, others))
        if first and second and (first != second or len(first) > 1):
            here, there = (", ".join(sorted(values)) for values in (first, second))
            return f"another --{key} ({here} and {there})"
    spacings = {r["case_id"]: r["spacing_mm"] for r in rows if r.get("spacing_mm")}
    for row in others:
        here, there = spacings.get(row["case_id"]), row.get("spacing_mm")
        if here and there and not np.allclose(here, there, rtol=1e-3, atol=0):
            texts = (
                "x".join(f"{length:g}" for length in spacing)
                for spacing in (here, there)
            )
            return f"another spacing ({' and '.join(texts)} mm, {row['case_id']})"
    return None
