"""Reads evaluated networks: a name and the rows of its cases.jsonl.

Whoever compares, tabulates or draws evaluations takes them from here, whether
launch.evaluate or launch.score made them. Needs no JAX.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.files import local_path
from attunet_jax.storage.names import shown
from attunet_jax.storage.run_folder import DESCRIPTION

CASES = "cases.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """An evaluated network."""

    name: str
    folder: Path  # holds cases.jsonl
    rows: list[dict]  # a row for each case and organ (and seed)


def read_evaluation(path: Path) -> Evaluation:
    """Reads the evaluation of a run, or of a folder that holds cases.jsonl.

    Args:
      path: a run's workdir, whose evaluation/test is read, or the `--output` of
        launch.evaluate or launch.score.

    Raises:
      BadArguments: there is no finished evaluation.
      BadData: cases.jsonl is not what these programs write.
    """
    given = local_path(path)
    if not given.exists():
        raise BadArguments(f"{given}: no such folder")
    of_run = given / "evaluation" / "test"
    folder = of_run if (of_run / CASES).is_file() else given
    file = folder / CASES
    if not file.is_file():
        raise BadArguments(f"{given}: {_why_not_evaluated(given, of_run)}")
    return Evaluation(_name(folder), folder, _read_rows(file))


def read_evaluations(paths: Iterable[Path]) -> list[Evaluation]:
    """Reads several evaluations, and gives those of one name longer ones.

    Raises `BadArguments` where one is given twice, and as `read_evaluation`.
    """
    found: list[Evaluation] = []
    places: dict[Path, Path] = {}
    for path in paths:
        evaluation = read_evaluation(path)
        place = evaluation.folder.resolve()
        if place in places:
            raise BadArguments(
                f"{path}: is the same evaluation as {places[place]}; name each once"
            )
        places[place] = path
        found.append(evaluation)
    return _with_different_names(found)


def _why_not_evaluated(given: Path, of_run: Path) -> str:
    for folder in (of_run, given):
        if (folder / f".{CASES}.new").is_file():
            return (
                "its evaluation was interrupted; give the same launch.evaluate or "
                "launch.score again"
            )
    others = sorted(path.parent for path in (given / "evaluation").glob(f"*/{CASES}"))
    if others:
        names = ", ".join(map(str, others))
        return f"has no evaluation/test; name one of its others: {names}"
    described = all((given / name).is_file() for name in DESCRIPTION)
    if (given / "checkpoints").is_dir() or described:
        return (
            "not evaluated yet: run python -m launch.evaluate "
            f"--workdir={given} --data=DIR"
        )
    return (
        f"holds no {CASES}, so it is neither an evaluated run nor the --output of "
        "launch.evaluate or launch.score"
    )


def _name(folder: Path) -> str:
    """RUN for RUN/evaluation/test, `RUN (PART)` for another part, else the folder's."""
    folder = Path(shown(folder.resolve()))
    if folder.parent.name != "evaluation":
        return folder.name
    run = folder.parent.parent.name
    return run if folder.name == "test" else f"{run} ({folder.name})"


def _with_different_names(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Puts as many parent folders before equal names as tell them apart."""
    depth = 1
    names = [evaluation.name for evaluation in evaluations]
    while len(set(names)) < len(names) and depth < 50:
        depth += 1
        names = [
            _longer(evaluation, depth)
            if [e.name for e in evaluations].count(evaluation.name) > 1
            else evaluation.name
            for evaluation in evaluations
        ]
    return [replace(e, name=name) for e, name in zip(evaluations, names, strict=True)]


def _longer(evaluation: Evaluation, depth: int) -> str:
    folder = Path(shown(evaluation.folder.resolve()))
    if folder.parent.name == "evaluation":
        folder = folder.parent.parent
    parents = [part for part in folder.parts[:-1] if part != "/"][-(depth - 1) :]
    return "/".join((*parents, evaluation.name))


def _read_rows(file: Path) -> list[dict]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadData(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadData(f"{file}: is not text in UTF-8: evaluate again") from None
    rows, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadData(
                f"{file}: line {number} is not JSON ({one_line(error)}): evaluate again"
            ) from None
        if reason := _what_is_wrong(row):
            raise BadData(f"{file}: line {number}: {reason}: evaluate again")
        key = row["case_id"], row["organ"], row.get("seed")
        if key in seen:
            raise BadData(
                f"{file}: line {number}: case {row['case_id']} has {row['organ']} "
                "twice: evaluate again"
            )
        seen.add(key)
        rows.append(row)
    if not rows:
        raise BadData(f"{file}: has no rows: evaluate again")
    return rows


def _what_is_wrong(row: object) -> str:
    if not isinstance(row, dict):
        return "is not a case's scores"
    for name in ("case_id", "organ"):
        if not isinstance(row.get(name), str):
            return f"{name} is missing or not a text"
    for name in METRICS:
        value = row.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            return f"{name} is {value!r}, not a number or null"
    return ""
