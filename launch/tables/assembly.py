"""Makes a table of the evaluations that are there, and writes its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.evaluate import tables
from attunet_jax.evaluate.paper_tables import CROSS_VALIDATION
from attunet_jax.evaluate.tables import Result
from attunet_jax.files import write_text
from attunet_jax.storage.names import shown
from launch.tables.standing import Standing

Key = tuple[str, str]


def results_of(standings: Sequence[Standing]) -> dict[Key, Result]:
    """Returns what the table needs of each entry with an evaluated row.

    Rows of several seeds carry their `seed`; those of folds are put together.
    """
    found: dict[Key, list[Standing]] = {}
    for standing in standings:
        if standing.record:
            entry = standing.row.entry
            found.setdefault((entry.network, entry.split), []).append(standing)
    return {key: _result(key, there, standings) for key, there in found.items()}


def inference_text(standings: Sequence[Standing]) -> str:
    """Returns `160×160×96 voxels on cpu`, or each of several once."""
    texts = []
    for standing in standings:
        if standing.record:
            timed = standing.record["inference"]
            shape = "×".join(map(str, reversed(timed["shape"])))
            texts.append(f"{shape} voxels on {timed['device']}")
    return "; ".join(dict.fromkeys(texts))


def write_table(
    workdir: Path, table: Mapping[str, Any], results: Mapping[Key, Result]
) -> tuple[str, list[Path]]:
    """Writes the table's files; returns the Markdown and the files.

    `results` are those of all its networks, added ones too.
    """
    written = tables.table_files(table, results)
    for name, content in written.items():
        write_text(workdir / name, content)
    text = written[f"{tables.name_of(table)}.md"]
    return text, [workdir / name for name in written]


def data_text(dataset: Dataset) -> str:
    return f"{len(dataset.case_ids)} cases of {dataset.place}"


def _result(
    key: Key, there: Sequence[Standing], standings: Sequence[Standing]
) -> Result:
    of_entry = [s for s in standings if (s.row.entry.network, s.row.entry.split) == key]
    seeds = {standing.row.seed for standing in there}
    rows = [
        {**case, "seed": standing.row.seed} if len(seeds) > 1 else case
        for standing in there
        for case in standing.cases
    ]
    records = [standing.record for standing in there if standing.record]
    train_cases = [record["train_cases"] for record in records]
    folds = {standing.row.split for standing in there}
    return Result(
        rows=rows,
        parameters=records[0]["parameters"],
        inference_s=sum(r["inference"]["seconds"] for r in records) / len(records),
        train_cases=round(sum(train_cases) / len(train_cases)),
        note=_note(there, of_entry, len(seeds)),
        folds=len(folds) if key[1] == CROSS_VALIDATION else 1,
    )


def _note(there: Sequence[Standing], of_entry: Sequence[Standing], seeds: int) -> str:
    """Which runs and checkpoints; how many of them, where some are missing."""
    steps = sorted({s.record["step"] for s in there if s.record})
    step = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    if len(of_entry) == 1:
        return f"{shown(there[0].row.trained)}, checkpoint of {step}"
    first = shown(there[0].row.folder)
    note = f"{len(there)} runs such as {first}, checkpoints of {step}"
    if seeds > 1:
        note += f", {seeds} seeds"
    if len(there) < len(of_entry):
        note += f"; {len(of_entry) - len(there)} of {len(of_entry)} runs are missing"
    return note
