"""What is there of each row of a table, read from its files without starting JAX."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.evaluation_record import newest_step, read_record
from attunet_jax.evaluate.evaluations import read_evaluation
from attunet_jax.files import read_json
from attunet_jax.train.config_checks import (
    differing_fields,
    lengths_of,
    meant_before,
    with_current_fields,
)
from launch.tables.rows import Row

AGAIN = "train it again in another --workdir"


@dataclass(frozen=True)
class Standing:
    """A row and what is there of it."""

    row: Row
    steps: int  # that the training has
    done: int  # steps of them that are trained
    record: dict[str, Any] | None  # of an evaluation that is up to date
    cases: list[dict]  # its rows of cases.jsonl

    @property
    def trained(self) -> bool:
        return self.done >= self.steps

    @property
    def problem(self) -> str:
        """What kind of thing is missing; empty where all is there."""
        if not self.row.trains and not self.trained:
            return "without a run in --sources"
        if not self.trained:
            return "trained in part" if self.done else "not trained"
        return "" if self.record else "not evaluated"


def standing_of(row: Row, dataset: Dataset) -> Standing:
    """Reads what is there of a row.

    Raises `BadArguments` or `BadData` where its folder holds another training.
    """
    run = stored_run(row.trained)
    newest = newest_step(row.trained)
    if not row.trains:
        steps = newest or 1
        done = newest if run and newest is not None else 0
        if done == 0 and newest == 0 and run:  # imported weights
            steps = 0
    else:
        _, steps = lengths_of(row.config, len(dataset.split(row.split)["train"]))
        done = newest or 0
        if run is not None and newest is not None:
            _check_same(row, run, dataset, steps, done)
    found = Standing(row, steps, done, None, [])
    return _with_evaluation(found, dataset) if found.trained else found


def check_others(rows: Iterable[Row]) -> None:
    """Raises `BadArguments` where another table's run has other settings.

    `rows` are those that this command would make of the other tables.
    """
    for row in rows:
        run = stored_run(row.folder)
        if run is None or not row.trains or newest_step(row.folder) is None:
            continue
        stored = with_current_fields(run["config"])
        config = _as_begun(row, run)
        config["init_from"] = stored["init_from"]
        differing = differing_fields(stored, config)
        lengths = [stored["train"].get(name) for name in ("steps", "epochs")]
        asked = [config["train"][name] for name in ("steps", "epochs")]
        # Epochs count where there is no number of steps.
        if lengths != asked and (lengths[0] or asked[0] or lengths[1] != asked[1]):
            differing.append(
                f"--config.train.steps ({lengths[0]} there, {asked[0]} here)"
                if lengths[0] != asked[0]
                else f"--config.train.epochs ({lengths[1]} there, {asked[1]} here)"
            )
        if differing:
            raise BadArguments(
                f"{row.folder} holds a network of another table, with another "
                f"{'; '.join(differing)}: tables with different settings need "
                "another --workdir each"
            )


def stored_run(workdir: Path) -> dict[str, Any] | None:
    """Reads RUN/config.json; None where nothing is trained there.

    Raises `BadData` where it is not what launch.train writes.
    """
    path = workdir / "config.json"
    try:
        run = read_json(path, AGAIN)
    except FileNotFoundError:
        return None
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
        raise BadData(f"{path}: holds no config: {AGAIN}")
    return run


def missing_text(standings: Sequence[Standing]) -> str:
    """Returns `2 not trained (20_80/unet, ...); 1 not evaluated (...)`, or ""."""
    kinds: dict[str, list[str]] = {}
    for standing in standings:
        if problem := standing.problem:
            kinds.setdefault(problem, []).append(standing.row.name)
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - 3} more" if len(names) > 4 else ""
        listed = names[:3] if more else names
        parts.append(f"{len(names)} {kind} ({', '.join(listed)}{more})")
    return "; ".join(parts)


def _as_begun(row: Row, run: dict[str, Any]) -> dict[str, Any]:
    """The row's config with what fields meant before they were there, as training."""
    config = json.loads(row.config.to_json())
    for name, value in meant_before(run["config"], config).items():
        group, field = name.split(".")
        config[group][field] = value
    return config


def _check_same(
    row: Row, run: dict[str, Any], dataset: Dataset, steps: int, done: int
) -> None:
    stored = with_current_fields(run["config"])
    if differing := differing_fields(stored, _as_begun(row, run)):
        raise BadArguments(
            f"{row.folder} holds a run with another {'; '.join(differing)}: use "
            "another --workdir"
        )
    if run.get("manifest_sha256") != dataset.manifest_sha256:
        raise BadArguments(
            f"{row.folder} was trained on other data than {dataset.place} (its "
            "manifest differs): use another --workdir"
        )
    if redrawn := dataset.redrawn_since(run):
        raise BadArguments(f"{redrawn}, or use another --workdir than {row.folder}")
    asked = [stored["train"].get(name) for name in ("steps", "epochs")]
    their_steps = (
        asked[0]
        or asked[1] * lengths_of(row.config, len(dataset.split(row.split)["train"]))[0]
    )
    if done > steps or (not row.requested and their_steps != steps):
        raise BadArguments(
            f"{row.folder} holds a run of {max(done, their_steps)} steps, this command "
            f"asks for {steps}: a table needs the same of all its networks: use "
            "another --workdir"
        )


def _with_evaluation(standing: Standing, dataset: Dataset) -> Standing:
    """Adds the evaluation where it is of this checkpoint, data and settings."""
    row = standing.row
    record = read_record(row.evaluation)
    if record is None:
        return standing
    settings = json.loads(json.dumps(row.config.predict.to_dict()))
    wanted = {
        "manifest_sha256": dataset.manifest_sha256,
        "split_sha256": dataset.split_sha256(row.split),
        "part": "test",
        "settings": settings,
        "newest_step": newest_step(row.trained),
    }
    is_current = all(record.get(key) == value for key, value in wanted.items())
    if not is_current or not record.get("inference"):
        return standing
    cases = read_evaluation(row.evaluation).rows
    tested = {case["case_id"] for case in cases}
    on_grid = {case.get("grid", "prepared") for case in cases} == {row.grid}
    if tested != set(dataset.split(row.split)["test"]) or not on_grid:
        return standing
    return replace(standing, record=record, cases=cases)
