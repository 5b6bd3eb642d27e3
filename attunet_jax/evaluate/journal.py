"""Rows of cases.jsonl as they are written case by case, so that a kill loses none."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def journal_of(path: Path) -> Path:
    """Written case by case, until all are there: a kill loses no row."""
    return path.with_name(f".{path.name}.new")


def lines(rows: Iterable[dict]) -> str:
    """Returns the rows as lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def made_by(row: Mapping[str, Any], stamp: Mapping[str, Any]) -> bool:
    """Returns whether a row has all of the stamp: it need not be made again."""
    return all(row.get(key) == value for key, value in stamp.items())


def rows_in(path: Path) -> list[dict]:
    """Reads the rows of a file; none where it is missing, nor lines cut short."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line cut short by a kill
            if isinstance(row, dict) and {"case_id", "organ"} <= row.keys():
                rows.append(row)
    return rows
