"""Turns a folder of CT scans with label maps into shards that training streams.

    python -m data_prep.prepare --source=nifti --input=SCANS --output=DATA \\
        --labels=spleen=1,pancreas=2,kidney=3
    python -m data_prep.prepare --source=nnunet --input=Dataset007 --output=DATA

DATA gets cases-*.array_record, manifest.json and splits.json. Interrupted, the same
command goes on. A case that cannot be used is left out, listed at the end and in
rejected.json, and the exit status is 3; after mending the file the same command
prepares what changed.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attunet_jax.data.dataset import FORMAT, FORMAT_VERSION
from attunet_jax.errors import BadArguments, BadData, Interrupted, exit_status
from data_prep.case import Settings
from data_prep.processes import run_in_processes
from data_prep.shard import PARTS, ShardSpec, finished, prepare_shard, write_json
from data_prep.sources import SOURCES
from data_prep.sources.layout import parse_organs
from data_prep.spacing import parse_spacing
from data_prep.splits import FOLDS, make_splits


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    layout = SOURCES[arguments.source](arguments.input)
    organs = parse_organs(arguments.labels) if arguments.labels else layout.organs
    if not organs:
        raise BadArguments(
            f"--source={arguments.source} does not say what labels mean: give "
            "--labels=spleen=1,pancreas=2,kidney=3"
        )
    if not layout.pairs:
        raise BadData(f"{arguments.input}: no scans found for {arguments.source}")
    if layout.unlabelled:
        images = {str(pair.image.parent) for pair in layout.unlabelled if pair.image}
        print(
            f"{len(layout.unlabelled)} scans without labels are not prepared, they are "
            f"for launch.predict --input={', '.join(sorted(images))}"
        )
    settings = Settings(
        organs=organs,
        spacing_mm=arguments.spacing_mm,
        blur_mm=arguments.blur_mm,
        ignore_unknown_labels=arguments.ignore_unknown_labels,
    )
    output = arguments.output
    remembered = settings.as_json() | {
        "source": arguments.source,
        "cases_per_shard": arguments.cases_per_shard,
    }
    _claim(output, remembered)
    size = arguments.cases_per_shard
    groups = [layout.pairs[i : i + size] for i in range(0, len(layout.pairs), size)]
    specs = [
        ShardSpec(i, len(groups), tuple(group), output, settings)
        for i, group in enumerate(groups)
    ]
    _remove_others(output, specs)
    parts = _run(specs, arguments.workers)
    return _finish(output, parts, remembered, organs, arguments)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", required=True, choices=sorted(SOURCES), help="layout of the folder")
    add("--input", required=True, type=Path, help="folder of the scans")
    add("--output", required=True, type=Path, help="folder for the prepared data")
    add("--labels", help="spleen=1,pancreas=2,kidney=3 or kidney=2+3 to merge")
    add(
        "--spacing_mm",
        type=parse_spacing,
        default=(2.0, 2.0, 2.0),
        help="one number or three, D,H,W (default 2, as in the paper)",
    )
    add(
        "--blur_mm",
        type=float,
        default=0.0,
        help="Gaussian before resampling (default 0; the published scripts 0.75)",
    )
    add("--ignore_unknown_labels", action="store_true", help="count them as background")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--cases_per_shard", type=int, default=8, help="cases in a file (default 8)")
    add("--seed", type=int, default=0, help="of the splits (default 0)")
    add("--test_fraction", type=float, default=0.2, help="default 0.2")
    add(
        "--validation_fraction",
        type=float,
        default=0.1,
        help="of the training pool, for choosing checkpoints (default 0.1)",
    )
    add(
        "--folds",
        choices=FOLDS,
        default=FOLDS[0],
        help="of 5-fold cross-validation: random, or ct82, the published folds of TCIA "
        "Pancreas-CT by the number at the end of each case's name",
    )
    arguments = parser.parse_args(argv)
    for name in ("workers", "cases_per_shard"):
        if getattr(arguments, name) < 1:
            raise BadArguments(f"--{name}={getattr(arguments, name)} must be 1 or more")
    for name in ("test_fraction", "validation_fraction"):
        if not 0 <= getattr(arguments, name) < 1:
            raise BadArguments(f"--{name}={getattr(arguments, name)} must be in [0, 1)")
    if arguments.seed < 0:
        raise BadArguments(f"--seed={arguments.seed} must be 0 or more")
    if not 0 <= arguments.blur_mm < 20:
        raise BadArguments(f"--blur_mm={arguments.blur_mm} must be in [0, 20)")
    return arguments


def _claim(output: Path, settings: dict) -> None:
    """Makes the folder, or refuses one that was prepared whole with other settings.

    What a run left unfinished is not refused: its shards say what they were made with.
    """
    path = output / "manifest.json"
    try:
        (output / PARTS).mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        differing = ", ".join(
            f"{key} ({before.get(key)} there, {settings.get(key)} now)"
            for key in sorted(before.keys() | settings.keys())
            if before.get(key) != settings.get(key)
        )
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadData(
            f"{output}: cannot be written ({error.strerror}); choose another --output"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadData(f"{path}: damaged; remove {output} and start again") from None
    if differing:
        raise BadArguments(
            f"{output} was prepared with another {differing}: use another --output"
        )


def _remove_others(output: Path, specs: list[ShardSpec]) -> None:
    """Shards of an earlier run over another number of cases, and leavings of kills."""
    keep = {spec.path.name for spec in specs}
    for path in output.glob("*.array_record*"):
        if path.name not in keep:
            path.unlink()
    for path in [*output.glob(".*.part"), *(output / PARTS).glob(".*.part")]:
        path.unlink()


def _run(specs: list[ShardSpec], workers: int) -> list[dict]:
    """Prepares what is not there yet, in processes, with time left on a bar."""
    parts: dict[int, dict] = {}
    todo = []
    for spec in specs:
        part = finished(spec)
        if part is None:
            todo.append(spec)
        else:
            parts[spec.index] = part
    total = sum(len(spec.pairs) for spec in specs)
    begun = total - sum(len(spec.pairs) for spec in todo)
    with tqdm(total=total, initial=begun, unit="case", desc="prepare") as bar:
        if workers == 1 or len(todo) <= 1:
            for spec in todo:
                parts[spec.index] = prepare_shard(spec, bar.update)
        else:

            def done(number: int, part: dict) -> None:
                parts[todo[number].index] = part
                bar.update(len(todo[number].pairs))

            calls = [(spec,) for spec in todo]
            run_in_processes(prepare_shard, calls, workers, specs[0].output, done)
    return [parts[spec.index] for spec in specs]


def _finish(
    output: Path, parts: list[dict], settings: dict, organs: dict, arguments
) -> int:
    """Joins the parts into splits.json and manifest.json, the manifest last."""
    rejected = [row for part in parts for row in part["rejected"]]
    cases = [case for part in parts for case in part["cases"]]
    for name in ("manifest.json", "rejected.json"):
        (output / name).unlink(missing_ok=True)
    if rejected:
        write_json(output / "rejected.json", {"rejected": rejected})
    if not cases:
        raise BadData(
            f"{arguments.input}: no case could be used; the first: "
            f"{rejected[0]['reason']}"
        )
    splits = make_splits(
        [case["case_id"] for case in cases],
        seed=arguments.seed,
        test_fraction=arguments.test_fraction,
        validation_fraction=arguments.validation_fraction,
        folds=arguments.folds,
    )
    write_json(
        output / "splits.json",
        {"version": 1, "seed": arguments.seed, "splits": splits},
    )
    write_json(
        output / "manifest.json",
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "organs": {organ: i for i, organ in enumerate(organs, start=1)},
            "spacing_mm": list(arguments.spacing_mm),
            "settings": settings,
            "shards": [
                {key: part[key] for key in ("file", "records", "bytes", "sha256")}
                for part in parts
            ],
            "cases": cases,
        },
    )
    _summarise(output, cases, organs)
    if rejected:
        listed = "".join(f"\n  {row['case_id']}: {row['reason']}" for row in rejected)
        print(f"left out {len(rejected)}:{listed}", file=sys.stderr)
        raise BadData(
            f"{output / 'rejected.json'}: {len(rejected)} of "
            f"{len(rejected) + len(cases)} cases were left out, for the reasons above"
        )
    return 0


def _summarise(output: Path, cases: list[dict], organs: dict) -> None:
    shapes = np.array([case["shape"] for case in cases])
    voxel_ml = float(np.prod(cases[0]["spacing_mm"])) / 1000
    print(
        f"{len(cases)} cases at {cases[0]['spacing_mm']} mm, shapes "
        f"{shapes.min(0).tolist()} to {shapes.max(0).tolist()} [D, H, W]"
    )
    for organ in organs:
        volumes = np.array([case["voxels"][organ] for case in cases]) * voxel_ml
        missing = int((volumes == 0).sum())
        print(
            f"  {organ}: median {np.median(volumes):.0f} ml"
            + (f", absent in {missing} cases" if missing else "")
        )
    print(
        "next: python -m launch.train --config=configs/attention_unet.py "
        f"--data={output} --workdir=RUN"
    )


def _stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would come amid leaving
    raise Interrupted(
        f"{signal.Signals(number).name}: stopped; the same command goes on from here"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(exit_status(main))
