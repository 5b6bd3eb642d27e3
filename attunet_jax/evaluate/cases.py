"""Predicts and scores prepared cases; `cases.jsonl` has a line per case and organ."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from attunet_jax.data.crops import CropSpec, centre_crop
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.journal import journal_of, lines, made_by, rows_in
from attunet_jax.evaluate.metrics import measure_case
from attunet_jax.evaluate.surfels import Definition
from attunet_jax.files import write_text
from attunet_jax.predict.predictor import Predictor
from attunet_jax.volume import Volume


@dataclass(frozen=True)
class Scoring:
    """On which grid predictions are scored, and whose areas weigh their surfaces.

    `original` reads a case's scan, and the case on that scan's own grid, with the label
    map that was drawn on it; scores are then those of launch.predict's label maps.
    Without it the prepared grid is scored.
    """

    definition: Definition = "mesh"
    original: Callable[[str], tuple[Volume, Case]] | None = None

    @property
    def grid(self) -> str:
        return "scan" if self.original else "prepared"


PREPARED = Scoring()


def evaluate_cases(
    predictor: Predictor,
    dataset: Dataset,
    case_ids: Iterable[str],
    path: Path,
    *,
    on_case: Callable[[Case, np.ndarray, list[dict], bool], None],
    is_incomplete: Callable[[str], bool] = lambda case_id: False,
    scoring: Scoring = PREPARED,
) -> list[dict]:
    """Predicts each case and scores it on the prepared grid, or on the scan's own.

    The whole case, or its centre crop if `config.predict.region` says so. Organs that
    the network was not trained on are not scored. Cases that `path` already holds for
    this checkpoint, data and settings are not predicted again, unless `is_incomplete`.

    Args:
      path: the JSON-lines file to read and to write.
      on_case: called with (case, prediction `[D, H, W]`, rows, is_new) for every case
        that is predicted; `is_new` unless `path` holds its rows.
      is_incomplete: whether another output of the case is missing.
      scoring: on which grid, and by which definition.

    Returns:
      The rows of all cases, in the order of `case_ids`.

    Raises:
      BadArguments: the data has another spacing than the network or none of its organs.
    """
    organs = organs_of(predictor, dataset)
    stamp = stamp_of(predictor, dataset, scoring)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = journal_of(path)
    done = _read_rows(tmp_path, stamp, organs) | _read_rows(path, stamp, organs)
    rows = []
    with _journal(tmp_path, (row for rows in done.values() for row in rows)) as file:
        for case_id in case_ids:
            of_case = done.get(case_id, [])
            is_new = not of_case
            if is_new or is_incomplete(case_id):
                case, prediction, seconds = _predicted(
                    predictor, dataset, case_id, scoring
                )
                if is_new:
                    of_case = [
                        {"case_id": case_id, **row, "seconds": seconds, **stamp}
                        for row in _scores(
                            dataset,
                            case,
                            prediction,
                            predictor,
                            organs,
                            scoring.definition,
                        )
                    ]
                on_case(case, prediction, of_case, is_new)
                if is_new:
                    file.write(lines(of_case))
                    file.flush()
            rows += of_case
    write_text(path, lines(rows))
    tmp_path.unlink()
    return rows


@contextmanager
def _journal(path: Path, done: Iterable[dict]) -> Iterator[TextIO]:
    """Opens the rows so far to add others: a kill loses none of them.

    After an error without any row it is removed.
    """
    write_text(path, lines(done))
    try:
        with path.open("a", encoding="utf-8") as file:
            yield file
    except Exception:
        if path.stat().st_size == 0:
            path.unlink()
        raise


def _predicted(
    predictor: Predictor, dataset: Dataset, case_id: str, scoring: Scoring
) -> tuple[Case, np.ndarray, float]:
    """The case on the grid that is scored, its uint8 label map there, and seconds."""
    if scoring.original is not None:
        scan, case = scoring.original(case_id)
        start = time.perf_counter()
        prediction = predictor.label_map(scan)
        return case, prediction, time.perf_counter() - start
    case = dataset.case(case_id)
    whole_hu = case.image_hu
    if predictor.run["config"]["predict"]["region"] == "centre_crop":
        case = _centre_crop(case, predictor.run["config"]["data"])
    start = time.perf_counter()
    prediction = predictor.probabilities(case.image_hu, whole_hu).argmax(0)
    seconds = time.perf_counter() - start
    return case, prediction.astype(np.uint8), seconds


def stamp_of(
    predictor: Predictor, dataset: Dataset, scoring: Scoring = PREPARED
) -> dict[str, Any]:
    """What made a row: checkpoint, weights, settings, data, scoring. In every row."""
    return {
        **predictor.identity,
        "manifest_sha256": dataset.manifest_sha256,
        "grid": scoring.grid,
        "definition": scoring.definition,
    }


def rows_of_others(path: Path, stamp: Mapping[str, Any]) -> list[dict]:
    """Rows with other stamps, in `path` or in what an interruption left of it."""
    return [
        row
        for place in (path, journal_of(path))
        for row in rows_in(place)
        if not made_by(row, stamp)
    ]


def scored_cases(path: Path, stamp: Mapping[str, Any]) -> set[str]:
    """The cases with rows of this stamp, in `path` or in what is left beside it."""
    return {
        row["case_id"]
        for place in (path, journal_of(path))
        for row in rows_in(place)
        if made_by(row, stamp)
    }


def _scores(
    dataset: Dataset,
    case: Case,
    prediction: np.ndarray,
    predictor: Predictor,
    organs: dict[str, int],
    definition: Definition,
) -> list[dict]:
    """Scores a prediction where the case's label map has a truth."""
    labels = dataset.labels
    truth = labels.relabel(case.label, predictor.classes)
    mask = None
    if labels.ignore_value is not None:
        mask = case.label != labels.ignore_value
    return measure_case(
        truth, prediction, case.spacing_mm, organs, mask, definition=definition
    )


def _centre_crop(case: Case, data: dict) -> Case:
    """Cuts `case` to its centre crop: the published evaluation scores no more."""
    crop = CropSpec.exact(data["crop_shape"], data["padding"])
    window = centre_crop(case, crop)
    larger = np.array(case.image_hu.shape) - crop.window_shape
    shift = np.eye(4)
    shift[:3, 3] = np.where(larger < 0, -(-larger // 2), larger // 2)
    return replace(
        case,
        image_hu=window["image_hu"],
        label=window["label"],
        affine=case.affine @ shift,
    )


def organs_of(predictor: Predictor, dataset: Dataset) -> dict[str, int]:
    """Returns the label of each organ that the network was trained on and the data has.

    Raises `BadArguments` where there is none, or where their spacings differ.
    """
    spacing = dataset.manifest["spacing_mm"]
    if not np.allclose(spacing, predictor.spacing_mm, rtol=1e-3):
        raise BadArguments(
            f"{dataset.place} has a spacing of {spacing} mm, the network was "
            f"trained at {list(predictor.spacing_mm)} mm: prepare the scans with the "
            "network's spacing (--spacing_mm)"
        )
    organs = {
        name: value
        for name, value in predictor.labels.values.items()
        if name in dataset.labels.organs
    }
    if not organs:
        raise BadArguments(
            f"{dataset.place} has none of the organs that the network was trained "
            f"on: it has {', '.join(dataset.labels.organs)}, the network "
            f"{', '.join(predictor.labels.organs)}"
        )
    return organs


def _read_rows(path: Path, stamp: dict, organs: Iterable[str]) -> dict[str, list[dict]]:
    """Reads rows of earlier calls with the same stamp, by case: those of `organs`.

    A case that lacks one of them was cut short, and is left out.
    """
    rows: dict[str, dict[str, dict]] = {}
    for row in rows_in(path):
        if made_by(row, stamp):
            rows.setdefault(row["case_id"], {})[row["organ"]] = row
    return {
        case_id: [of_case[organ] for organ in organs]
        for case_id, of_case in rows.items()
        if of_case.keys() >= set(organs)
    }
