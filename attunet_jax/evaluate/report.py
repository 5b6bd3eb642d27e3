"""A predictor and prepared cases in, a folder of figures and pictures out.

What `launch.evaluate` and `launch.tables` share; it defines no flags.
"""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from attunet_jax import volume as volumes
from attunet_jax.evaluate.cases import evaluate_cases
from attunet_jax.evaluate.pictures import overlay_png
from attunet_jax.evaluate.summary import markdown_summary, summary
from attunet_jax.files import make_folder, write_text


def measure(
    predictor: Any,
    dataset: Any,
    case_ids: tuple[str, ...],
    output: Path,
    *,
    pictures: int,
    label_maps: bool,
) -> tuple[list[dict], str]:
    """Evaluates into `output`; returns the rows and a summary in Markdown."""
    make_folder(output / "label_maps" if label_maps else output)
    organs = {name: value for value, name in enumerate(predictor.classes) if value}
    drawn = set(case_ids[:pictures])

    with tqdm(total=len(case_ids), unit="case", desc="evaluate") as bar:

        def each(case: Any, prediction: Any, rows: list[dict]) -> None:
            bar.update()
            if case.case_id in drawn:
                dice = ", ".join(
                    f"{row['organ']} {row['dice']:.2f}"
                    for row in rows
                    if row["dice"] is not None
                )
                overlay_png(
                    output / f"{case.case_id}.png",
                    case.image_hu,
                    dataset.labels.relabel(case.label, predictor.classes),
                    prediction,
                    case.spacing_mm,
                    organs,
                    f"{case.case_id}: Dice {dice}",
                )
            if label_maps:
                grid = volumes.Grid(tuple(case.original_shape), case.original_affine)
                on_grid = volumes.onto_grid(
                    prediction, case.affine, grid, order="nearest"
                )
                volumes.write_on_grid(
                    output / "label_maps" / f"{case.case_id}.nii.gz", on_grid, grid
                )

        rows = evaluate_cases(
            predictor, dataset, case_ids, output / "cases.jsonl", each=each
        )
        bar.update(len(case_ids) - bar.n)
    figures = summary(rows)
    write_text(output / "summary.json", json.dumps(figures, indent=2) + "\n")
    text = markdown_summary(figures)
    write_text(output / "summary.md", text)
    return rows, text
