"""Reads journals: a line of JSON is added to them for each file that is whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def entries(journal: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name that each line is of, and what else it says.

    Half a line, of a process that was killed, is passed over; so is what is no entry.
    """
    for line in journal.read_bytes().splitlines() if journal.is_file() else ():
        try:
            entry = dict(json.loads(line))
            yield str(entry.pop("name")), entry
        except (ValueError, LookupError, TypeError):
            continue
