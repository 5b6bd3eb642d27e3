"""Where the numbers of the tables come from: provenance.json beside them.

Of each table: the command, versions, devices and commit of each training and
evaluation, seeds, checksums of the data and of the resolved configs; and of each number
the lines of the cases.jsonl that it is made of.
"""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadData
from attunet_jax.evaluate.tables import name_of
from attunet_jax.files import read_json, sha256, write_text
from attunet_jax.storage.names import shown
from launch.tables.added import Added
from launch.tables.standing import Standing, stored_run

FILE = "provenance.json"
FORMAT, FORMAT_VERSION = "attunet_jax.provenance", 1


def write_provenance(
    workdir: Path,
    table: Mapping[str, Any],
    standings: Sequence[Standing],
    dataset: Dataset,
    added: Sequence[Added],
) -> Path:
    """Adds a table to `workdir/provenance.json`; those of other tables stay.

    `standings` are the evaluated rows of the table.
    """
    path = workdir / FILE
    try:
        content = read_json(path, "remove it")
    except FileNotFoundError:
        content = {}
    if not isinstance(content, dict) or not isinstance(content.get("tables", {}), dict):
        raise BadData(f"{path}: is not what launch.tables writes: remove it")
    tables = content.get("tables", {})
    tables[name_of(table).removeprefix("table")] = {
        "command": sys.argv,
        "made_here": _here(),
        "data": {
            "directory": dataset.place,
            "cases": len(dataset.case_ids),
            "manifest_sha256": dataset.manifest_sha256,
            "splits_sha256": sha256(dataset.directory / "splits.json"),
        },
        "networks": [_network(standing, workdir) for standing in standings],
        "added": [
            {
                "name": network.name,
                "split": network.split,
                "label_maps": str(network.place),
                "cases": _place(network.cases, workdir),
                "cases_sha256": sha256(network.cases),
            }
            for network in added
        ],
        "numbers": _numbers(table, _files(standings, added), workdir),
    }
    content = {"format": FORMAT, "version": FORMAT_VERSION, "tables": tables}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _here() -> dict[str, Any]:
    """Versions and commit of the program that makes the table; it uses no device."""
    from attunet_jax.train.stored_run import version
    from attunet_jax.train.workdir import source_commit

    return {
        "attunet_jax": version(),
        "python": platform.python_version(),
        "commit": source_commit(),
    }


def _network(standing: Standing, workdir: Path) -> dict[str, Any]:
    row, record = standing.row, standing.record
    assert record is not None, "a row that is not evaluated"
    run = stored_run(row.trained) or {}
    config = row.trained / "config.json"
    return {
        "network": row.entry.network,
        "split": row.entry.split,
        "data_split": row.split,
        "seed": run.get("config", {}).get("seed", row.seed),
        "run": _place(row.trained, workdir),
        "step": record["step"],
        "weights": record["weights"],
        "config": _place(config, workdir),
        "config_sha256": sha256(config) if config.is_file() else None,
        "split_sha256": record["split_sha256"],
        "trained_on": _json_or_none(row.trained / "environment.json"),
        "evaluated_on": record["environment"],
        "cases": _place(row.evaluation / "cases.jsonl", workdir),
        "cases_sha256": sha256(row.evaluation / "cases.jsonl"),
    }


def _files(
    standings: Sequence[Standing], added: Sequence[Added]
) -> list[tuple[str, str, Path]]:
    """Network, split and cases.jsonl of all that is in the table."""
    ours = [standing.row for standing in standings]
    return [
        *(
            (row.entry.network, row.entry.split, row.evaluation / "cases.jsonl")
            for row in ours
        ),
        *((network.name, network.split, network.cases) for network in added),
    ]


def _numbers(
    table: Mapping[str, Any], files: Sequence[tuple[str, str, Path]], workdir: Path
) -> list[dict[str, Any]]:
    """For each number of a network and organ, the lines of the files behind it."""
    lines: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for network, split, file in files:
        of_organ: dict[str, list[int]] = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                of_organ.setdefault(json.loads(line)["organ"], []).append(number)
        for organ, numbers in of_organ.items():
            key = network, split, organ
            place = {"file": _place(file, workdir), "lines": numbers}
            lines.setdefault(key, []).append(place)
    return [
        {
            "label": quantity["label"],
            "organ": quantity["organ"],
            "metric": quantity["metric"],
            "network": entry["network"],
            "split": entry["split"],
            "from": found,
        }
        for quantity in table["quantities"]
        for entry in table["entries"]
        if (found := lines.get((entry["network"], entry["split"], quantity["organ"])))
    ]


def _place(path: Path, workdir: Path) -> str:
    """The path from the tables' folder where it lies in there."""
    is_inside = path.is_relative_to(workdir)
    return str(path.relative_to(workdir)) if is_inside else shown(path)


def _json_or_none(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, BadData):
        return None
