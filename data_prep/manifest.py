"""Descriptions of all shards in; splits.json, manifest.json and rejected.json out."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from attunet_jax.data.dataset import FORMAT, FORMAT_VERSION
from attunet_jax.data.labels import LabelMap
from attunet_jax.errors import BadArguments, BadData
from data_prep.plan import Plan
from data_prep.shard import PARTS, ShardSpec, finished, write_json
from data_prep.splits import make_splits


def claim(plan: Plan) -> None:
    """Makes the folder, or refuses one that was prepared whole with other settings.

    What a run left unfinished is not refused: its shards say what they were made with.
    """
    output, settings = plan.output, plan.remembered
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


def remove_others(output: Path, specs: Iterable[ShardSpec]) -> None:
    """Shards of an earlier run over another number of cases, and leavings of kills.

    Nobody else may be writing there.
    """
    keep = {path for spec in specs for path in (spec.path, spec.description)}
    for path in [*output.glob("*.array_record"), *(output / PARTS).glob("*.json")]:
        if path not in keep:
            path.unlink()
    remove_leavings(output)


def remove_leavings(output: Path) -> None:
    """What processes that were killed had begun to write."""
    for pattern in (".*.array_record.*.new", ".*.part", f"{PARTS}/.*.part"):
        for path in output.glob(pattern):
            path.unlink(missing_ok=True)


def collect(plan: Plan) -> list[dict]:
    """Descriptions of all shards. Raises `BadData` naming those that are not there."""
    found = {spec.index: finished(spec) for spec in plan.specs}
    missing = [index for index, part in found.items() if part is None]
    if missing:
        shown = ",".join(map(str, missing[:50])) + (",..." if missing[50:] else "")
        raise BadData(
            f"{plan.output}: {len(missing)} of {len(found)} shards are not there or "
            f"not of these files and settings: {shown}; run their tasks (again)"
        )
    return [part for part in found.values() if part is not None]


def refuse_rejected(parts: Iterable[dict]) -> None:
    """For --strict: what an earlier run left out is fatal as well."""
    for part in parts:
        for row in part["rejected"]:
            raise BadData(row["reason"])


def join(plan: Plan, parts: Sequence[dict]) -> None:
    """Writes what a reader of the folder needs, the manifest last, and a summary.

    Raises `BadData` at its end where cases were left out: the others are ready.
    """
    output, arguments = plan.output, plan.arguments
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
            "organs": dict(LabelMap.numbered(plan.organs).values),
            "spacing_mm": list(arguments.spacing_mm),
            "settings": plan.remembered,
            "shards": [
                {key: part[key] for key in ("file", "records", "bytes", "sha256")}
                for part in parts
            ],
            "cases": cases,
        },
    )
    _summarise(output, cases, plan.organs)
    if rejected:
        listed = "".join(f"\n  {row['case_id']}: {row['reason']}" for row in rejected)
        print(f"left out {len(rejected)}:{listed}", file=sys.stderr)
        raise BadData(
            f"{output / 'rejected.json'}: {len(rejected)} of "
            f"{len(rejected) + len(cases)} cases were left out, for the reasons above"
        )


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
