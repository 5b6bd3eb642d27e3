"""A predictor and prepared cases in, `cases.jsonl` out: a line per case and organ."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from attunet_jax.data.crops import CropSpec, centre_crop
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.metrics import measure_case
from attunet_jax.predict.predictor import Predictor


def evaluate_cases(
    predictor: Predictor,
    dataset: Dataset,
    case_ids: Iterable[str],
    path: Path,
    *,
    each: Callable[[Case, np.ndarray, list[dict]], None],
) -> list[dict]:
    """Predicts each case and measures it at the prepared spacing.

    The whole case, or its centre crop where `config.predict.region` says so. Cases that
    `path` already holds for this checkpoint, data and settings are not predicted
    again. `each` is called with (case, prediction `[D, H, W]`, rows) for every new
    one. Returns the rows of all cases, in order. Raises `BadArguments` where the data
    has another spacing than the network or lacks an organ.
    """
    organs = _organs(predictor, dataset)
    stamp = {
        "step": predictor.step,
        "manifest_sha256": dataset.manifest_sha256,
        "predict": predictor.settings_digest(),
    }
    done = _rows_already(path, stamp)
    rows = []
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside, and renamed at the end: a kill loses none of the rows of before.
    beside = path.with_name(f".{path.name}.new")
    done = _rows_already(beside, stamp) | done
    with beside.open("w", encoding="utf-8") as file:
        for case_id in case_ids:
            measured = done.get(case_id)
            if measured is None:
                case = dataset.case(case_id)
                whole_hu = case.image_hu
                if predictor.run["config"]["predict"]["region"] == "centre_crop":
                    case = _centre_crop(case, predictor.run["config"]["data"])
                began = time.perf_counter()
                prediction = predictor.probabilities(case.image_hu, whole_hu).argmax(0)
                seconds = time.perf_counter() - began
                prediction = prediction.astype(np.uint8)
                truth = dataset.labels.relabel(case.label, predictor.classes)
                measured = [
                    {"case_id": case_id, **row, "seconds": seconds, **stamp}
                    for row in measure_case(truth, prediction, case.spacing_mm, organs)
                ]
                each(case, prediction, measured)
            rows += measured
            file.write("".join(json.dumps(row) + "\n" for row in measured))
            file.flush()
    beside.replace(path)
    return rows


def _centre_crop(case: Case, data: dict) -> Case:
    """What the published evaluation scores; outside it nothing can be missed."""
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


def _organs(predictor: Predictor, dataset: Dataset) -> dict[str, int]:
    spacing = dataset.manifest["spacing_mm"]
    if not np.allclose(spacing, predictor.spacing_mm, rtol=1e-3):
        raise BadArguments(
            f"{dataset.directory} has a spacing of {spacing} mm, the network was "
            f"trained at {list(predictor.spacing_mm)} mm: prepare the scans with "
            "--spacing_mm of the latter"
        )
    organs = {
        name: value
        for value, name in enumerate(predictor.classes)
        if value and name in dataset.labels.organs
    }
    if not organs:
        raise BadArguments(
            f"{dataset.directory} has none of the network's organs: it has "
            f"{', '.join(dataset.labels.organs)}, the network "
            f"{', '.join(predictor.classes)}"
        )
    return organs


def _rows_already(path: Path, stamp: dict) -> dict[str, list[dict]]:
    """Rows of earlier calls for the same checkpoint and data, by case."""
    rows: dict[str, list[dict]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line cut short by a kill
            if all(row.get(key) == value for key, value in stamp.items()):
                rows.setdefault(row["case_id"], []).append(row)
    return rows
