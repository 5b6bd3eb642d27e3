"""Evaluates a network into a folder: scores, a summary, pictures, label maps."""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attunet_jax import volume as volumes
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.evaluate.cases import evaluate_cases
from attunet_jax.evaluate.pictures import overlay_png
from attunet_jax.evaluate.summary import markdown_summary, summary
from attunet_jax.files import make_folder, write_text
from attunet_jax.predict.predictor import Predictor


def evaluate_into_folder(
    predictor: Predictor,
    dataset: Dataset,
    case_ids: tuple[str, ...],
    folder: Path,
    *,
    pictures: int,
    label_maps: bool,
) -> tuple[list[dict], str]:
    """Evaluates `case_ids`; writes cases.jsonl, summary.json and summary.md.

    Args:
      pictures: overlay PNGs are drawn of the first so many cases.
      label_maps: whether predictions are kept, on the scans' own grids.

    Returns:
      The rows of all cases, and the summary in Markdown.

    Raises:
      BadArguments: as `evaluate_cases`.
      BadData: the folder cannot be written.
    """
    make_folder(folder / "label_maps" if label_maps else folder)
    organs = {name: value for value, name in enumerate(predictor.classes) if value}

    def draw(case: Case, prediction: np.ndarray, rows: list[dict]) -> None:
        dice = ", ".join(
            f"{row['organ']} {row['dice']:.2f}"
            for row in rows
            if row["dice"] is not None
        )
        overlay_png(
            folder / f"{case.case_id}.png",
            case.image_hu,
            dataset.labels.relabel(case.label, predictor.classes),
            prediction,
            case.spacing_mm,
            organs,
            f"{case.case_id}: Dice {dice}",
        )

    def write_label_map(case: Case, prediction: np.ndarray) -> None:
        depth, height, width = case.original_shape
        grid = volumes.Grid((depth, height, width), case.original_affine)
        on_grid = volumes.onto_grid(prediction, case.affine, grid, order="nearest")
        path = folder / "label_maps" / f"{case.case_id}.nii.gz"
        volumes.write_on_grid(path, on_grid, grid)

    with tqdm(total=len(case_ids), unit="case", desc="evaluate") as bar:

        def on_case(case: Case, prediction: np.ndarray, rows: list[dict]) -> None:
            bar.update()
            if case.case_id in case_ids[:pictures]:
                draw(case, prediction, rows)
            if label_maps:
                write_label_map(case, prediction)

        rows = evaluate_cases(
            predictor, dataset, case_ids, folder / "cases.jsonl", on_case=on_case
        )
        bar.update(len(case_ids) - bar.n)
    numbers = summary(rows)
    write_text(folder / "summary.json", json.dumps(numbers, indent=2) + "\n")
    text = markdown_summary(numbers)
    write_text(folder / "summary.md", text)
    return rows, text
