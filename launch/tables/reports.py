"""A page, report.html, of the networks of a table that share their test cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.evaluate.page.beside import NoReport, write_beside
from attunet_jax.evaluate.tables import Key, Result, name_of
from launch.tables.standing import Standing


def write_reports(
    workdir: Path,
    table: Mapping[str, Any],
    results: Mapping[Key, Result],
    standings: Sequence[Standing],
    data: Path,
    remarks: Sequence[str] = (),
) -> tuple[list[str], list[NoReport]]:
    """Writes table1.html, or one page for each split where test cases differ.

    `remarks` are sentences on the data, for the page's first words. Returns a line for
    each page that is written, and an error for each that is not.
    """
    names = [(entry["name"], entry["split"]) for entry in table["entries"]]
    keys = [(entry["network"], entry["split"]) for entry in table["entries"]]
    places: dict[Key, list[Standing]] = {}
    for standing in standings:
        entry = standing.row.entry
        places.setdefault((entry.network, entry.split), []).append(standing)
    pages: dict[frozenset[str], list[int]] = {}
    for i, key in enumerate(keys):
        cases = frozenset(row["case_id"] for row in results[key].rows)
        pages.setdefault(cases, []).append(i)
    written, failed = [], []
    for group in pages.values():
        there = {i: places[keys[i]] for i in group if keys[i] in places}
        splits = "_".join(dict.fromkeys(keys[i][1] for i in group))
        suffix = f"_{splits}" if len(pages) > 1 else ""
        path = workdir / f"{name_of(table)}{suffix}.html"
        try:
            line = write_beside(
                path,
                {names[i][0]: results[keys[i]].rows for i in group},
                folders={
                    names[i][0]: [one.row.evaluation for one in of_row]
                    for i, of_row in there.items()
                },
                workdirs={
                    names[i][0]: [one.row.trained for one in of_row]
                    for i, of_row in there.items()
                },
                data=data,
                title=f"Table {table['number']}: {table['title']}"
                + (f", {splits}" if suffix else ""),
                remarks=remarks,
            )
        except NoReport as error:
            failed.append(error)
            continue
        written.append(line)
    return written, failed
