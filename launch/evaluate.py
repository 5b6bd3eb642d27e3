"""Measures a trained network on the test cases of a prepared data set.

    python -m launch.evaluate --workdir=RUN --data=DIR
    python -m launch.evaluate --workdir=RUN --data=DIR --part=validation --pictures=5

Writes OUTPUT/cases.jsonl (a line per case and organ: Dice, precision, recall, surface
distances), summary.json and summary.md; OUTPUT is RUN/evaluation/PART unless given.
An interrupted evaluation goes on with the same command.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from attunet_jax.errors import BadArguments
from launch import program

flags.DEFINE_string("workdir", None, "Folder of a trained run.")
flags.DEFINE_string("data", None, "Prepared data set.")
flags.DEFINE_string("output", None, "Folder for the figures.")
flags.DEFINE_string("split", None, "Split of the data (default: the run's own).")
flags.DEFINE_string("part", "test", "train, validation, test, or all cases.")
flags.DEFINE_string(
    "checkpoint", None, "best, latest or a step (default: the run's predict.checkpoint)"
)
flags.DEFINE_bool("average_flips", None, "Average over four in-plane flips.")
flags.DEFINE_integer("pictures", 0, "Overlay PNGs of the first so many cases.")
flags.DEFINE_bool("label_maps", False, "Keep predictions on the scans' own grids.")


def main(values: Any) -> None:
    workdir = Path(program.required("workdir"))
    data = Path(program.required("data"))

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from attunet_jax.predict.predictor import load_predictor

    dataset = open_dataset(data)
    overrides = {}
    if values.average_flips is not None:
        overrides["average_flips"] = values.average_flips
    predictor = load_predictor(workdir, values.checkpoint, overrides)
    if values.part == "all":
        case_ids = dataset.case_ids
    else:
        split = values.split or predictor.run["config"]["data"]["split"]
        parts = dataset.split(split)
        if values.part not in parts:
            raise BadArguments(
                f"--part={values.part} is none of: {', '.join(parts)}, all"
            )
        case_ids = tuple(parts[values.part])
        if not case_ids:
            raise BadArguments(f"{data}: split {split} has no {values.part} cases")
    output = Path(values.output or workdir / "evaluation" / values.part)
    _, text = measure(
        predictor,
        dataset,
        case_ids,
        output,
        pictures=values.pictures,
        label_maps=values.label_maps,
    )
    print(text)


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
    from tqdm import tqdm

    from attunet_jax import volume as volumes
    from attunet_jax.evaluate.cases import evaluate_cases, relabelled
    from attunet_jax.evaluate.figures import overlay_png
    from attunet_jax.evaluate.summary import markdown_summary, summary

    program.make_folder(output / "label_maps" if label_maps else output)
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
                    relabelled(case.label, dataset.organs, predictor.classes),
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
    program.write_text(output / "summary.json", json.dumps(figures, indent=2) + "\n")
    text = markdown_summary(figures)
    program.write_text(output / "summary.md", text)
    return rows, text


if __name__ == "__main__":
    program.run(main, __doc__ or "")
