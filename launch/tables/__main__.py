"""Trains and evaluates the networks of a table of the paper, and writes the table.

    python -m launch.tables --table=1 --data=DIR --workdir=RUNS
    python -m launch.tables --table=2 --data=DIR --workdir=RUNS --seeds=3
    python -m launch.tables --table=3 --data=DIR82 --workdir=RUNS82 --sources=RUNS/80_20
    python -m launch.tables --table=4 --data=DIR82 --workdir=RUNS82 --folds=ct82
    python -m launch.tables --table=1 --data=DIR --workdir=RUNS --add=nnU-Net:OUTPUT
    python -m launch.tables --table=1 --data=DIR --workdir=RUNS --dry_run
    python -m launch.tables --table=1 --data=DIR --workdir=RUNS --print_commands
    python -m launch.tables --table=1 --data=DIR --workdir=RUNS --assemble

Table 1 compares U-Net and Attention U-Net on the splits 80_20 and 20_80 (the paper's
120/30 and 30/120), Table 2 adds two U-Nets of higher capacity. Table 3 evaluates the
runs of Table 1 on other scans of the pancreas (split 75_25, the paper's 61/21): as they
are (bft), fine-tuned on them (aft), and networks trained on them from scratch (scr).
Table 4 is the cross-validation of Attention U-Net over fold_1 to fold_5, all held-out
cases together, beside the published methods.

Each network is trained with --config by a launch.train of its own, in
RUNS/SPLIT/NETWORK (Table 3: STAGE/NETWORK; further seeds: NETWORK_seed_SEED). Finished
trainings and evaluations are reused; an interrupted command continues when it is given
again. --print_commands writes a line for each network that is not finished, to be run
anywhere; --assemble then makes the table. Writes table1.md, .csv, .json and .tex, the
comparisons and all scores as CSV, table1.html (as launch.report does) and
provenance.json into the workdir. Exit status 0 means that the table is whole; 3 that
rows which were asked for are missing (not with --allow_missing).
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.paper_tables import TABLES
from attunet_jax.files import make_folder
from attunet_jax.storage import run_folder
from attunet_jax.storage.names import shown, with_urls
from launch import cli
from launch.devices import check_devices
from launch.flag_types import named_folders, positive
from launch.tables.rows import BEGUN_ELSEWHERE, Row, rows_of

if TYPE_CHECKING:
    from attunet_jax.data.dataset import Dataset
    from attunet_jax.storage.staging import Staging
    from launch.tables.added import Added
    from launch.tables.standing import Standing

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add("table", int, 1, "Which table of the paper: 1, 2, 3 or 4.")
FLAGS.add(
    "workdir",
    cli.workdir,
    None,
    "Folder of all the table's runs, here or gs://.",
    required=True,
)
FLAGS.add_data()
FLAGS.add(
    "splits", cli.names, None, "Train only these splits or stages (default: all)."
)
FLAGS.add(
    "sources",
    cli.workdir,
    None,
    "Table 3: folder of Table 1's finished runs, here or gs://.",
)
FLAGS.add("seeds", positive, 1, "Train each network so often, from config.seed on.")
FLAGS.add(
    "folds",
    str,
    "random",
    "Table 4: those of the data, or only the published ones of CT-82.",
    choices=("random", "ct82"),
)
FLAGS.add("launcher", str, "", 'Instead of "python -m launch.train".')
FLAGS.add("print_commands", bool, False, "Print the command of each row; do nothing.")
FLAGS.add("dry_run", bool, False, "Print steps, hours and disk; write nothing.")
FLAGS.add("assemble", bool, False, "Start nothing: make the table of what is there.")
FLAGS.add("allow_missing", bool, False, "Status 0 also where rows are missing.")
FLAGS.add(
    "add",
    named_folders,
    (),
    "NAME:FOLDER of somebody else's label maps, a row of their own; commas between.",
)
FLAGS.add("grid", str, "prepared", "Grid of the scores.", choices=("prepared", "scan"))
FLAGS.add("truth", cli.readable, None, "For --grid=scan: what prepare had as --input.")
FLAGS.add("pictures", int, 3, "Overlay PNGs of the first so many test cases.")
FLAGS.add(
    "label_maps", bool, False, "Keep predictions, of which the page draws the worst."
)
FLAGS.add(
    "interval", str, "t", "Student's t, or the BCa bootstrap.", choices=("t", "bca")
)
FLAGS.add("about", str, "", "A remark on the data, for the footnote.")
FLAGS.add("paper", bool, True, "Put the paper's numbers beside ours.")


def main(values: cli.Values) -> None:
    requested = _requested(values)
    with ExitStack() as folders:
        sources = _sources(values, requested)
        if sources is not None:
            described = [f"*/{name}" for name in run_folder.DESCRIPTION]
            sources = folders.enter_context(
                run_folder.read(sources, values.cache_dir, files=described)
            )
        files = folders.enter_context(
            run_folder.written(values.workdir, values.cache_dir, user="tables")
        )
        values.workdir = files.folder
        _make_table(values, requested, sources, files)


def _make_table(
    values: cli.Values, requested: Sequence[str], sources: Path | None, files: "Staging"
) -> None:
    """Does what is asked for with `values.workdir`, which `files` keeps."""
    number = values.table
    rows = rows_of(
        number, values, requested=requested, seeds=values.seeds, sources=sources
    )

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from launch.tables.data import check_data, check_published_folds
    from launch.tables.sources import notes_on_sources
    from launch.tables.standing import check_others, standing_of

    dataset = open_dataset(values.data, values.cache_dir)
    if values.folds == "ct82":
        check_published_folds(dataset)
    check_data(dataset, [row for row in rows if row.requested])
    others = [row for n in TABLES if n != number for row in rows_of(n, values)]
    ours = {row.folder for row in rows}
    others = [row for row in others if row.folder not in ours]
    check_others(others)
    rows = [row for row in rows if row.requested or row.split in dataset.splits]

    def standings_now() -> list["Standing"]:
        return [standing_of(row, dataset) for row in rows]

    standings = standings_now()
    if values.print_commands:
        _print_commands(standings, values)
        return
    if values.dry_run:
        from launch.tables.cost import cost_text

        check_devices()
        to_do = [s for s in standings if s.row.requested and s.row.trains]
        print(cost_text(to_do, [*rows, *others], values.launcher))
        return
    notes = notes_on_sources(
        [r.source for r in rows if r.source], dataset, values.cache_dir
    )
    for note in notes:
        print(f"note: {with_urls(note)}", flush=True)
    from launch.tables.added import score_added

    added = score_added(
        values.add,
        number,
        rows,
        dataset,
        values.config,
        values.workdir,
        values.cache_dir,
    )
    if not values.assemble:
        from launch.tables.evaluation import evaluate_all  # late: imports jax

        _check_sources(standings)
        check_devices()
        make_folder(values.workdir)
        _train(standings, [*rows, *others], values, files.refresh)
        with run_folder.sending(files):
            evaluate_all(standings_now(), dataset, values)
        standings = standings_now()
    _write(values, standings, dataset, notes, added)


def _requested(values: cli.Values) -> Sequence[str]:
    """Checks the flags against each other; returns the splits that are asked for."""
    if values.table not in TABLES:
        raise BadArguments(f"--table={values.table}: there are tables 1, 2, 3 and 4")
    if values.pictures < 0:
        raise BadArguments(f"--pictures={values.pictures} must be 0 or more")
    modes = [m for m in ("print_commands", "dry_run", "assemble") if values.__dict__[m]]
    if len(modes) > 1:
        raise BadArguments(f"--{' and --'.join(modes)}: give one of them")
    if values.folds == "ct82" and values.table != 4:
        raise BadArguments(f"--folds={values.folds} is for --table=4")
    if (values.grid == "scan") != (values.truth is not None):
        raise BadArguments("--grid=scan and --truth=DIR belong together")
    if values.add and values.grid == "scan":
        raise BadArguments("--add scores on the prepared grid: leave out --grid=scan")
    known = TABLES[values.table].splits
    requested = values.splits or known
    if not set(requested) <= set(known):
        raise BadArguments(
            f"--splits={','.join(requested)}: there are {', '.join(known)}"
        )
    return requested


def _sources(values: cli.Values, requested: Sequence[str]) -> Path | str | None:
    if set(BEGUN_ELSEWHERE).isdisjoint(requested):
        return values.sources
    return values.required("sources")


def _check_sources(standings: Sequence["Standing"]) -> None:
    """Raises `BadData` where a run that a row begins from is not there."""
    from attunet_jax.evaluate.evaluation_record import newest_step

    for standing in standings:
        source = standing.row.source
        if source is None or not standing.row.requested or standing.trained:
            continue
        if newest_step(source) is None:
            raise BadData(
                f"{source}: no checkpoints here, and {standing.row.name} begins from "
                "it: make Table 1 first (with the same --seeds), or correct --sources"
            )


def _print_commands(standings: Sequence["Standing"], values: cli.Values) -> None:
    """Prints a line for each row that is asked for and not finished."""
    from launch.tables.standing import stored_run

    left = [s for s in standings if s.row.requested and s.problem]
    for standing in left:
        row, commands = standing.row, []
        stored = None
        if not standing.trained and row.trains:
            commands.append(row.train_command(values.launcher))
        elif run := stored_run(row.trained):
            stored = run["config"].get("predict", {})
        words = row.evaluate_words(values.pictures, stored)
        words += ["--label_maps"] if values.label_maps else []
        commands.append(["python", "-m", "launch.evaluate", *words])
        print(" && ".join(map(shlex.join, commands)))
    finished = sum(s.row.requested for s in standings) - len(left)
    print(
        f"{len(left)} commands; {finished} rows are finished; then: the same command "
        "with --assemble instead of --print_commands",
        file=sys.stderr,
    )


def _train(
    standings: Sequence["Standing"],
    everything: Sequence[Row],
    values: cli.Values,
    look_again: Callable[[], None],
) -> None:
    from launch.tables.training import train_all

    to_do = []
    for standing in standings:
        row = standing.row
        if not (row.requested and row.trains):
            continue
        if standing.trained:
            print(f"== {row.name}: finished: at step {standing.done}", flush=True)
        else:
            to_do.append(standing)
    train_all(values.table, to_do, everything, values.launcher, look_again)


def _write(
    values: cli.Values,
    standings: Sequence["Standing"],
    dataset: "Dataset",
    notes: Sequence[str],
    added: Sequence["Added"],
) -> None:
    """Writes table and provenance; raises `BadData` where a row is missing."""
    from attunet_jax.evaluate import tables
    from launch.tables import assembly
    from launch.tables.provenance import write_provenance
    from launch.tables.reports import write_reports
    from launch.tables.standing import missing_text

    missing = missing_text([s for s in standings if s.row.requested])
    results = assembly.results_of(standings)
    what = f"table {values.table} in {shown(values.workdir)}"
    if not results:
        raise BadData(
            f"{what}: no row can be filled: {missing}: leave out --assemble, or run "
            "what --print_commands prints"
        )
    remarks = [values.about] if values.about else []
    remarks += notes
    if missing:
        remarks.append(f"Missing: {missing}.")
    evaluated = [standing for standing in standings if standing.record]
    theirs = {network.key: network.result for network in added}
    table = tables.table(
        values.table,
        results,
        data=assembly.data_text(dataset),
        inference=assembly.inference_text(evaluated),
        seed=values.config.seed,
        interval=values.interval,
        paper=values.paper,
        remarks=remarks,
        added=theirs,
    )
    if values.grid == "scan":
        table["name"] = f"{tables.name_of(table)}_on_scan_grid"
    make_folder(values.workdir)
    text, files = assembly.write_table(values.workdir, table, results | theirs)
    files.append(write_provenance(values.workdir, table, evaluated, dataset, added))
    print(f"\n{text}")
    print(f"written: {', '.join(map(shown, files))}")
    pages, failed = write_reports(
        values.workdir, table, results | theirs, evaluated, dataset.directory, remarks
    )
    for line in pages:
        print(with_urls(line))
    for error in failed[:-1] if not missing else failed:
        print(f"error: {with_urls(str(error))}", file=sys.stderr, flush=True)
    if failed and (not missing or values.allow_missing):
        raise failed[-1]
    if missing and not values.allow_missing:
        raise BadData(
            f"{what} is not whole: {missing}: leave out --assemble, run what "
            "--print_commands prints, or --allow_missing"
        )


if __name__ == "__main__":
    cli.run(FLAGS, main)
