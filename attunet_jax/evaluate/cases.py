"""Predicts and scores prepared cases; `cases.jsonl` has a line per case and organ."""

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
    on_case: Callable[[Case, np.ndarray, list[dict]], None],
) -> list[dict]:
    """Predicts each case and scores it on the prepared grid.

    The whole case, or its centre crop if `config.predict.region` says so. Cases that
    `path` already holds for this checkpoint, data and settings are not predicted again.

    Args:
      path: the JSON-lines file to read and to write.
      on_case: called with (case, prediction `[D, H, W]`, rows) for every new case.

    Returns:
      The rows of all cases, in the order of `case_ids`.

    Raises:
      BadArguments: the data has another spacing than the network or none of its organs.
    """
    organs = _organs(predictor, dataset)
    stamp = {
        "step": predictor.step,
        "manifest_sha256": dataset.manifest_sha256,
        "predict": predictor.settings_digest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under a temporary name, renamed at the end: a kill loses no earlier row.
    tmp_path = path.with_name(f".{path.name}.new")
    done = _read_rows(tmp_path, stamp) | _read_rows(path, stamp)
    rows = []
    with tmp_path.open("w", encoding="utf-8") as file:
        for case_id in case_ids:
            of_case = done.get(case_id)
            if of_case is None:
                case = dataset.case(case_id)
                whole_hu = case.image_hu
                if predictor.run["config"]["predict"]["region"] == "centre_crop":
                    case = _centre_crop(case, predictor.run["config"]["data"])
                start = time.perf_counter()
                prediction = predictor.probabilities(case.image_hu, whole_hu).argmax(0)
                seconds = time.perf_counter() - start
                prediction = prediction.astype(np.uint8)
                truth = dataset.labels.relabel(case.label, predictor.classes)
                of_case = [
                    {"case_id": case_id, **row, "seconds": seconds, **stamp}
                    for row in measure_case(truth, prediction, case.spacing_mm, organs)
                ]
                on_case(case, prediction, of_case)
            rows += of_case
            file.write("".join(json.dumps(row) + "\n" for row in of_case))
            file.flush()
    tmp_path.replace(path)
    return rows


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


def _organs(predictor: Predictor, dataset: Dataset) -> dict[str, int]:
    """Label of each organ that both the network and the data have."""
    spacing = dataset.manifest["spacing_mm"]
    if not np.allclose(spacing, predictor.spacing_mm, rtol=1e-3):
        raise BadArguments(
            f"{dataset.directory} has a spacing of {spacing} mm, the network was "
            f"trained at {list(predictor.spacing_mm)} mm: prepare the scans with the "
            "network's spacing (--spacing_mm)"
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


def _read_rows(path: Path, stamp: dict) -> dict[str, list[dict]]:
    """Reads the rows of earlier calls with the same stamp, by case."""
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
