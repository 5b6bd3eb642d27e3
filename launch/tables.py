"""Trains and evaluates the networks of a table of the paper, and writes the table.

    python -m launch.tables --table=1 --data=DIR --workdir=RUNS
    python -m launch.tables --table=2 --data=DIR --workdir=RUNS --config.seed=1
    python -m launch.tables --table=3 --data=DIR82 --workdir=RUNS82 --sources=RUNS/80_20

Table 1 compares U-Net and Attention U-Net on the splits 80_20 and 20_80 (the paper's
120/30 and 30/120), Table 2 adds two U-Nets of higher capacity. Table 3 evaluates the
runs of Table 1 on other scans of the pancreas (split 75_25, the paper's 61/21): as they
are (bft), fine-tuned on them (aft), and networks trained on them from scratch (scr).
Each network is trained with --config in RUNS/SPLIT/NETWORK (Table 3: STAGE/NETWORK).
Finished trainings and evaluations are reused; an interrupted command continues when it
is given again. Writes table1.md, .csv and .json into the workdir.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.paper_tables import TABLES
from attunet_jax.files import make_folder, write_text
from configs.base import PAPER_CLASSES
from launch import cli
from launch.devices import check_devices

if TYPE_CHECKING:
    from attunet_jax.data.dataset import Dataset
    from attunet_jax.evaluate.tables import Result

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add("table", int, 1, "Which table of the paper: 1, 2 or 3.")
FLAGS.add("workdir", Path, None, "Folder of all the table's runs.", required=True)
FLAGS.add("data", Path, None, "Prepared data set.", required=True)
FLAGS.add("splits", cli.names, None, "Only these splits or stages (default: all).")
FLAGS.add("sources", Path, None, "Table 3: folder of Table 1's finished runs.")
FLAGS.add("pictures", int, 3, "Overlay PNGs of the first so many test cases.")
FLAGS.add("about", str, "", "A remark on the data, for the footnote.")
FLAGS.add("paper", bool, True, "Put the paper's numbers beside ours.")

# Table 3: before and after fine-tuning, from scratch; on the split that is 61/21 of 82.
STAGES = ("bft", "aft", "scr")
STAGE_SPLIT = "75_25"
STAGE_CLASSES = ("background", "pancreas")


def main(values: cli.Values) -> None:
    data, workdir = values.data, values.workdir
    if values.table not in TABLES:
        raise BadArguments(f"--table={values.table}: there are tables 1, 2 and 3")
    if values.pictures < 0:
        raise BadArguments(f"--pictures={values.pictures} must be 0 or more")
    known = TABLES[values.table].splits
    requested = values.splits or known
    if not set(requested) <= set(known):
        raise BadArguments(
            f"--splits={','.join(requested)}: there are {', '.join(known)}"
        )
    needs_sources = not {"bft", "aft"}.isdisjoint(requested)
    sources = values.required("sources") if needs_sources else None
    configs = {
        (entry.network, entry.split): config_of(
            values.config, entry.network, entry.split, data, sources
        )
        for entry in TABLES[values.table].entries
        if entry.split in requested
    }
    check_devices()
    make_folder(workdir)

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from attunet_jax.evaluate import tables

    dataset = open_dataset(data)
    remarks = [values.about] if values.about else []
    for note in _notes_on_sources(configs.values(), dataset):
        print(f"note: {note}", flush=True)
        remarks.append(note)
    results, timed = {}, ""
    for (network, split), config in configs.items():
        print(f"\n== {network}, split {split}", flush=True)
        folder = workdir / split / network
        if split == "bft":
            trained = Path(config.init_from)
        else:
            trained = folder
            _train(config, folder)
        results[network, split], timed = _evaluate(
            config, trained, folder, dataset, values.pictures
        )
    table = tables.table(
        values.table,
        results,
        data=f"{len(dataset.case_ids)} cases of {data}",
        inference=timed,
        seed=values.config.seed,
        paper=values.paper,
        remarks=remarks,
    )
    text = tables.to_markdown(table)
    path = workdir / f"table{values.table}"
    write_text(path.with_suffix(".md"), text)
    write_text(path.with_suffix(".csv"), tables.to_csv(table))
    write_text(path.with_suffix(".json"), tables.to_json(table))
    print(f"\n{text}")
    print(f"written to {path}.md, .csv and .json")


def config_of(
    config: Any, network: str, split: str, data: Path, sources: Path | None
) -> Any:
    """Returns a copy of `config` for one entry of a table.

    Raises:
      BadArguments: `config` is not that of an Attention U-Net.
    """
    if not config.model.sub_gates:
        raise BadArguments(
            "--config must be an Attention U-Net (model.sub_gates above 0): the U-Nets "
            "of the table are derived from it"
        )
    copy = config.copy_and_resolve_references()
    importlib.import_module(f"configs.{network}").apply_to(copy)
    copy.data.split = STAGE_SPLIT if split in STAGES else split
    copy.data.directory = str(data)
    if split in ("aft", "scr"):
        copy.classes = STAGE_CLASSES
    elif not copy.classes:
        copy.classes = PAPER_CLASSES
    if split in ("bft", "aft"):
        assert sources is not None
        copy.init_from = str(sources / network)
    return copy


def _notes_on_sources(configs: Iterable[Any], dataset: "Dataset") -> list[str]:
    """Says of which sources the test cases are not new, or may not be."""
    sources: dict[str, list[str]] = {}
    for source in dict.fromkeys(c.init_from for c in configs if c.init_from):
        if reason := _why_not_new(Path(source), dataset):
            sources.setdefault(reason, []).append(source)
    return [f"{' and '.join(names)}: {reason}" for reason, names in sources.items()]


def _why_not_new(source: Path, dataset: "Dataset") -> str | None:
    """The reason why test cases are not new to the run `source`, if there is one."""
    from attunet_jax.checkpoint import open_existing
    from attunet_jax.data.dataset import open_dataset
    from attunet_jax.train.trained import stored_run

    with open_existing(source) as checkpoints:
        run = stored_run(checkpoints, checkpoints.steps()[-1])
    try:
        theirs = open_dataset(run["config"]["data"]["directory"])
        parts = theirs.split(run["config"]["data"]["split"])
    except (BadArguments, BadData):
        theirs, parts = None, {}
    if theirs is None or theirs.manifest_sha256 != run["manifest_sha256"]:
        return (
            "its training data is not here, so nobody can tell whether these test "
            "cases are among it"
        )
    seen = theirs.image_sha256(parts["train"] + parts["validation"])
    tested = dataset.split(STAGE_SPLIT)["test"]
    known = sum(sha256 in seen for sha256 in dataset.image_sha256(tested))
    if not known:
        return None
    return (
        f"trained or validated on {known} of these {len(tested)} test cases: scores "
        "before and after fine-tuning are not those of new scans"
    )


def _train(config: Any, folder: Path) -> None:
    """Trains one network in `folder` and draws its learning curve."""
    from attunet_jax.evaluate.pictures import learning_curve_png
    from attunet_jax.train.loop import train
    from attunet_jax.train.metrics import read_rows

    train(config, folder)
    learning_curve_png(folder / "progress.png", read_rows(folder / "metrics.jsonl"))


def _evaluate(
    config: Any, trained: Path, folder: Path, dataset: "Dataset", pictures: int
) -> "tuple[Result, str]":
    """Evaluates the run in `trained`; returns its `Result` and what was timed."""
    import jax

    from attunet_jax.evaluate.report import evaluate_into_folder
    from attunet_jax.evaluate.tables import Result
    from attunet_jax.predict.predictor import load_predictor
    from attunet_jax.train.state import parameter_count

    predictor = load_predictor(trained, config.predict.to_dict())
    parts = dataset.split(config.data.split)
    rows, text = evaluate_into_folder(
        predictor,
        dataset,
        parts["test"],
        folder / "evaluation" / "test",
        pictures=pictures,
        label_maps=False,
        replace=True,
    )
    print(text, flush=True)
    depth, height, width = config.data.crop_shape
    result = Result(
        rows=rows,
        parameters=parameter_count(predictor.variables["params"]),
        inference_s=predictor.forward_seconds((depth, height, width)),
        train_cases=len(parts["train"]),
        note=f"{trained}, checkpoint of step {predictor.step}",
    )
    device = jax.devices()[0].device_kind
    return result, f"{width}×{height}×{depth} voxels on {device}"


if __name__ == "__main__":
    cli.run(FLAGS, main)
