r"""Evaluates a trained network on the test cases of a prepared data set.

    python -m launch.evaluate --workdir=RUN --data=DIR
    python -m launch.evaluate --workdir=RUN --data=DIR --part=validation --pictures=5 \
        --config.predict.checkpoint=latest --config.predict.average_flips=True

    python -m launch.evaluate --workdir=RUN --data=DIR --grid=scan --truth=SCANS

Scores are those of the label maps on the prepared grid, resampled to its spacing. With
--grid=scan they are those of the label maps that launch.predict writes, on each scan's
own grid, against the original label maps in the folder --truth that was prepared: to
compare networks of different spacings, or with figures of others.

Writes OUTPUT/cases.jsonl (a line per case and organ: Dice, volumes, surface distances,
each defined in summary.md), summary.json, summary.md and report.html, a page with all
of it. OUTPUT is RUN/evaluation/PART unless given (PART_of_SPLIT with --split;
_on_scan_grid and _by_surface_distance are added with these). After an interruption
the same command continues.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from attunet_jax.distributed import processes
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.results_folder import open_results
from attunet_jax.storage import run_folder
from attunet_jax.storage.names import with_urls
from launch import cli
from launch.devices import check_devices

FLAGS = cli.Flags(__doc__, config="base", group="predict.")
FLAGS.add("workdir", cli.workdir, None, "A trained run, or gs://.", required=True)
FLAGS.add_data()
FLAGS.add("output", cli.writable, None, "Folder for the results, or gs://, s3://.")
FLAGS.add("split", str, None, "Split of the data (default: the run's own).")
FLAGS.add("part", str, "test", "train, validation, test, or all cases.")
FLAGS.add("grid", str, "prepared", "Grid of the scores.", choices=("prepared", "scan"))
FLAGS.add(
    "truth",
    cli.readable,
    None,
    "For --grid=scan: the folder that data_prep.prepare had as --input.",
)
FLAGS.add(
    "definition",
    str,
    "mesh",
    "Whose areas weigh the pieces of a surface.",
    choices=("mesh", "surface_distance"),
)
FLAGS.add("pictures", int, 0, "How many cases get a picture with outlines.")
FLAGS.add("timing", bool, False, "Time a forward pass, for launch.tables.")
FLAGS.add("label_maps", bool, False, "Also write label maps on the scans' own grids.")


def main(values: cli.Values) -> None:
    if processes.is_secondary_process(os.environ):
        print("evaluation runs in process 0 of the job; nothing to do here")
        return
    data = values.data
    if values.pictures < 0:
        raise BadArguments(f"--pictures={values.pictures} must be 0 or more")
    if values.grid == "scan" and values.truth is None:
        raise BadArguments(
            "--grid=scan needs --truth=DIR, the folder that data_prep.prepare had as "
            "--input: a prepared truth is resampled and cannot stand for the original"
        )
    if values.grid != "scan" and values.truth is not None:
        raise BadArguments(f"--truth={values.truth} is for --grid=scan")
    check_devices()

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from attunet_jax.evaluate.cases import Scoring
    from attunet_jax.evaluate.evaluation_record import write_record
    from attunet_jax.evaluate.page.beside import write_beside
    from attunet_jax.evaluate.report import evaluate_into_folder
    from attunet_jax.predict.predictor import load_predictor
    from attunet_jax.storage.mirror import mirrored
    from attunet_jax.storage.urls import check_writable

    with run_folder.read(values.workdir, values.cache_dir) as workdir:
        # Before data are copied and scored for a place that takes no results.
        check_writable(values.output or values.workdir)
        dataset = open_dataset(data, values.cache_dir)
        predictor = load_predictor(workdir, values.predict_fields())
    name, split = values.part, None
    if values.part == "all":
        case_ids = dataset.case_ids
    else:
        own = predictor.run["config"]["data"]["split"]
        split = values.split or own
        parts = dataset.split(split, "--split" if values.split else "")
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
    original = None
    if values.grid == "scan":
        from data_prep.original import OriginalCases

        if predictor.run["config"]["predict"]["region"] == "centre_crop":
            raise BadArguments(
                "--grid=scan scores whole scans: give --config.predict.region=whole"
            )
        truth = mirrored(values.required("truth"), values.cache_dir)
        original = OriginalCases(truth, dataset, case_ids)
        name += "_on_scan_grid"
    if values.definition != "mesh":
        name += f"_by_{values.definition}"
    with ExitStack() as folders:
        workdir, output = _folders(values, name, folders)
        rows, text = evaluate_into_folder(
            predictor,
            dataset,
            case_ids,
            output,
            pictures=values.pictures,
            label_maps=values.label_maps,
            replace=values.output is None,
            scoring=Scoring(values.definition, original),
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
        print(with_urls(text))
        line = write_beside(
            output / "report.html",
            {workdir.resolve().name: rows},
            folders={workdir.resolve().name: [output]},
            workdirs={workdir.resolve().name: [workdir]},
            data=dataset.directory,
        )
        print(with_urls(line))


def _folders(
    values: cli.Values, name: str, open_folders: ExitStack
) -> tuple[Path, Path]:
    """The folder of the run, and that of the results, in it unless --output is given.

    `name` is that of the results among those of the run.
    """
    described = run_folder.DESCRIPTION
    if values.output:
        run = run_folder.read(values.workdir, values.cache_dir, files=described)
        results = open_results(values.output, values.cache_dir)
        return open_folders.enter_context(run), open_folders.enter_context(results)
    folder = f"evaluation/{name}"
    files = (*described, folder)
    staged = run_folder.written(
        values.workdir, values.cache_dir, user=f"evaluate-{name}", files=files
    )
    run = open_folders.enter_context(staged)
    open_folders.enter_context(run_folder.sending(run))
    return run.folder, run.folder / folder


if __name__ == "__main__":
    cli.run(FLAGS, main)
