"""Trains, evaluates and prints a table of the paper, its figures beside ours.

    python -m launch.tables --table=1 --data=DIR --workdir=RUNS
    python -m launch.tables --table=2 --data=DIR --workdir=RUNS --config.seed=1
    python -m launch.tables --table=3 --data=DIR82 --workdir=RUNS82 --sources=RUNS/80_20

Table 1 compares U-Net and Attention U-Net on the splits 80_20 and 20_80 (the paper's
120/30 and 30/120), Table 2 adds two U-Nets of higher capacity. Table 3 measures the
runs of Table 1 on other scans of the pancreas (split 75_25, the paper's 61/21): as they
are (bft), fine-tuned on them (aft), and networks trained on them from scratch (scr).
Each network is trained with --config in RUNS/SPLIT/NETWORK (Table 3: STAGE/NETWORK);
what is trained or evaluated already is not done again, and an interrupted command goes
on. Writes table1.md, .csv and .json into the workdir.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments
from attunet_jax.files import make_folder, write_text
from launch import cli

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add("table", int, 1, "Which table of the paper: 1, 2 or 3.")
FLAGS.add("workdir", Path, None, "Folder of all the table's runs.", required=True)
FLAGS.add("data", Path, None, "Prepared data set.", required=True)
FLAGS.add("splits", cli.names, None, "Only these splits or stages (default: all).")
FLAGS.add("sources", str, None, "Table 3: folder of Table 1's finished runs.")
FLAGS.add("pictures", int, 3, "Overlay PNGs of the first so many test cases.")
FLAGS.add("about", str, "", "A remark for the footnote, say what data it is.")

# Table -> (network, split or stage) of each entry, in the paper's order.
ENTRIES = {
    1: [
        ("unet", "80_20"),
        ("attention_unet", "80_20"),
        ("unet", "20_80"),
        ("attention_unet", "20_80"),
    ],
    2: [("unet_wide", "80_20"), ("unet_huge", "80_20")],
    3: [
        (network, stage)
        for stage in ("bft", "aft", "scr")
        for network in ("unet", "attention_unet")
    ],
}
# Before and after fine-tuning, from scratch: on the split that is 61/21 of 82 cases.
STAGES = ("bft", "aft", "scr")
STAGE_SPLIT = "75_25"
STAGE_CLASSES = ("background", "pancreas")


def main(values: cli.Values) -> None:
    data, workdir = values.data, values.workdir
    if values.table not in ENTRIES:
        raise BadArguments(f"--table={values.table}: there are tables 1, 2 and 3")
    known = list(dict.fromkeys(split for _, split in ENTRIES[values.table]))
    wanted = values.splits or known
    if not set(wanted) <= set(known):
        raise BadArguments(f"--splits={','.join(wanted)}: there are {', '.join(known)}")
    entries = [entry for entry in ENTRIES[values.table] if entry[1] in wanted]
    needs_sources = {"bft", "aft"} & {split for _, split in entries}
    sources = Path(values.required("sources")) if needs_sources else None
    configs = {
        (network, split): config_of(values.config, network, split, data, sources)
        for network, split in entries
    }
    make_folder(workdir)

    from attunet_jax.data.dataset import open_dataset  # late: these import jax
    from attunet_jax.evaluate import tables
    from attunet_jax.evaluate.pictures import learning_curve_png
    from attunet_jax.train.loop import train
    from attunet_jax.train.metrics import read_rows

    dataset = open_dataset(data)
    results, timed = {}, ""
    for (network, split), config in configs.items():
        print(f"\n== {network}, split {split}", flush=True)
        folder = workdir / split / network
        if split == "bft":
            trained = Path(config.init_from)
        else:
            trained = folder
            train(config, folder)
            learning_curve_png(
                folder / "progress.png", read_rows(folder / "metrics.jsonl")
            )
        results[network, split], timed = _result(
            config, trained, folder, dataset, values.pictures
        )
    table = tables.table(
        values.table,
        results,
        data=f"{len(dataset.case_ids)} cases of {data}. {values.about}".rstrip(". "),
        inference=timed,
        seed=values.config.seed,
    )
    for ending, text in (
        ("md", tables.to_markdown(table)),
        ("csv", tables.to_csv(table)),
        ("json", tables.to_json(table)),
    ):
        write_text(workdir / f"table{values.table}.{ending}", text)
    print("\n" + tables.to_markdown(table))
    print(f"written to {workdir / f'table{values.table}'}.md, .csv and .json")


# Changes to --config's model for each network. The published code divides 64..1024 by
# a scale: 4 for the networks of Table 1, 3.82 and 3 for the larger U-Nets of Table 2.
NETWORKS: dict[str, Callable[[Any], None]] = {
    "attention_unet": lambda model: None,
    "unet": lambda model: _ungated(model, 4),
    "unet_wide": lambda model: _ungated(model, 3.82),
    "unet_huge": lambda model: _ungated(model, 3),
}


def _ungated(model: Any, scale: float) -> None:
    model.sub_gates = 0
    model.widths = tuple(int(w * 4 / scale) for w in model.widths)


def config_of(
    config: Any, network: str, split: str, data: Path, sources: Path | None
) -> Any:
    """A copy of `config` for one entry. Raises `BadArguments` for an ungated one."""
    if not config.model.sub_gates:
        raise BadArguments(
            "--config must be an Attention U-Net (model.sub_gates above 0): the U-Nets "
            "of the table are made from it"
        )
    copy = config.copy_and_resolve_references()
    NETWORKS[network](copy.model)
    copy.name = network
    copy.data.split = STAGE_SPLIT if split in STAGES else split
    copy.data.directory = str(data)
    if split in ("aft", "scr"):
        copy.classes = STAGE_CLASSES
    if split in ("bft", "aft"):
        assert sources is not None
        copy.init_from = str(sources / network)
    return copy


def _result(
    config: Any, trained: Path, folder: Path, dataset: Any, pictures: int
) -> tuple[Any, str]:
    """Evaluates one entry: its `Result` and what was timed, in words."""
    import jax

    from attunet_jax.evaluate.report import measure
    from attunet_jax.evaluate.tables import Result
    from attunet_jax.predict.predictor import load_predictor
    from attunet_jax.train.state import parameter_count

    predictor = load_predictor(trained, config.predict.to_dict())
    parts = dataset.split(config.data.split)
    output = folder / "evaluation" / "test"
    rows, text = measure(
        predictor,
        dataset,
        parts["test"],
        output,
        pictures=pictures,
        label_maps=False,
    )
    print(text, flush=True)
    shape = tuple(config.data.crop_shape)
    result = Result(
        rows=rows,
        parameters=parameter_count(predictor.variables["params"]),
        inference_s=predictor.forward_seconds(shape),
        train_cases=len(parts["train"]),
        note=f"{trained}, checkpoint of step {predictor.step}",
    )
    where = jax.devices()[0].device_kind
    return result, f"{shape[2]}×{shape[1]}×{shape[0]} voxels on {where}"


if __name__ == "__main__":
    cli.run(FLAGS, main)
