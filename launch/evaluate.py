r"""Evaluates a trained network on the test cases of a prepared data set.

    python -m launch.evaluate --workdir=RUN --data=DIR
    python -m launch.evaluate --workdir=RUN --data=DIR --part=validation --pictures=5 \
        --config.predict.checkpoint=latest --config.predict.average_flips=True

Scores are those of the label maps on the prepared grid. Writes OUTPUT/cases.jsonl (a
line per case and organ: Dice, precision, recall, surface distances), summary.json and
summary.md; OUTPUT is RUN/evaluation/PART unless given (PART_of_SPLIT with --split).
After an interruption the same command continues.
"""

import os
from pathlib import Path

from attunet_jax.distributed import processes
from attunet_jax.errors import BadArguments
from launch import cli
from launch.devices import check_devices

FLAGS = cli.Flags(__doc__, config="base", group="predict.")
FLAGS.add("workdir", Path, None, "Folder of a trained run.", required=True)
FLAGS.add("data", Path, None, "Prepared data set.", required=True)
FLAGS.add("output", Path, None, "Folder for the results.")
FLAGS.add("split", str, None, "Split of the data (default: the run's own).")
FLAGS.add("part", str, "test", "train, validation, test, or all cases.")
FLAGS.add("pictures", int, 0, "How many cases get a picture with outlines.")
FLAGS.add("timing", bool, False, "Time a forward pass, for launch.tables.")
FLAGS.add("label_maps", bool, False, "Also write label maps on the scans' own grids.")


def main(values: cli.Values) -> None:
    if processes.is_secondary_process(os.environ):
        print("evaluation runs in process 0 of the job; nothing to do here")
        return
    workdir, data = values.workdir, values.data
    if values.pictures < 0:
        raise BadArguments(f"--pictures={values.pictures} must be 0 or more")
    check_devices()

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from attunet_jax.evaluate.evaluation_record import write_record
    from attunet_jax.evaluate.report import evaluate_into_folder
    from attunet_jax.predict.predictor import load_predictor

    dataset = open_dataset(data)
    predictor = load_predictor(workdir, values.predict_fields())
    name, split = values.part, None
    if values.part == "all":
        case_ids = dataset.case_ids
    else:
        own = predictor.run["config"]["data"]["split"]
        split = values.split or own
        parts = dataset.split(split)
        if redrawn := dataset.redrawn_since(predictor.run):
            raise BadArguments(f"{redrawn}, train again, or evaluate --part=all")
        if split != own:
            name += f"_of_{split}"
        if values.part not in parts:
            raise BadArguments(
                f"--part={values.part} is none of: {', '.join(parts)}, all"
            )
        case_ids = tuple(parts[values.part])
        if not case_ids:
            raise BadArguments(f"{data}: split {split} has no {values.part} cases")
    output = values.output or workdir / "evaluation" / name
    _, text = evaluate_into_folder(
        predictor,
        dataset,
        case_ids,
        output,
        pictures=values.pictures,
        label_maps=values.label_maps,
        replace=values.output is None,
    )
    write_record(
        output,
        predictor,
        dataset,
        workdir=workdir,
        split=split,
        part=values.part,
        timing=values.timing,
    )
    print(text)


if __name__ == "__main__":
    cli.run(FLAGS, main)
