"""Completes an output folder: manifest.json, splits.json and rejected.json."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet_jax.data.dataset import FORMAT, FORMAT_VERSION
from attunet_jax.data.identity import counted
from attunet_jax.data.labels import IGNORED, LabelMap
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import read_json
from attunet_jax.storage.names import shown, with_urls
from attunet_jax.storage.staging import Staging
from attunet_jax.volume import checks
from data_prep.patients import find_patients
from data_prep.plan import Plan
from data_prep.shard import (
    DESCRIPTIONS,
    ShardSpec,
    read_description,
    refuse_doubtful,
    write_json,
)
from data_prep.splits import make_splits
from data_prep.splits_file import user_splits, write_splits
from data_prep.wording import grouped

# What the numbers of a case in the manifest run along.
AXES = {
    "shape": "D, H, W: feet to head, front to back, patient's right to left",
    "spacing_mm": "D, H, W",
    "original_spacing_mm": "D, H, W",
    "original_shape": "those of the scan's file (x, y, z), as stored",
}


def acquire_output(plan: Plan) -> None:
    """Makes the output folder.

    Raises `BadArguments` where it was completed with other settings, `BadData` where it
    cannot be written. An incomplete folder is accepted: each of its shards is compared
    with the settings by its own description. Raises `BadData` also for a splits.json
    that cannot be read.
    """
    output, settings = plan.output, plan.settings
    path = output / "manifest.json"
    user_splits(output)
    try:
        (output / DESCRIPTIONS).mkdir(parents=True, exist_ok=True)
        before = read_json(path)["settings"]
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
    except (BadData, KeyError, TypeError, AttributeError):
        raise BadData(f"{path}: damaged; remove {output} and start again") from None
    if differing:
        raise BadArguments(
            f"{output} was prepared with another {differing}: use another --output"
        )


def remove_stale_files(output: Path, specs: Iterable[ShardSpec]) -> None:
    """Removes shards of an earlier run over another number of cases, and temporary
    files. No other process may be writing into the folder."""
    keep = {path for spec in specs for path in (spec.path, spec.description)}
    descriptions = (output / DESCRIPTIONS).glob("*.json")
    for path in [*output.glob("*.array_record"), *descriptions]:
        if path not in keep:
            path.unlink()
    remove_temporary_files(output)


def remove_temporary_files(output: Path) -> None:
    """Removes what processes that were killed had begun to write."""
    for pattern in (".*.*.new", f"{DESCRIPTIONS}/.*.*.new"):
        for path in output.glob(pattern):
            path.unlink(missing_ok=True)


def read_descriptions(plan: Plan, stage: Staging) -> list[dict]:
    """Descriptions of all shards. Raises `BadData` naming those that are missing."""
    found = {
        spec.index: read_description(spec, stage.is_stand_in) for spec in plan.specs
    }
    missing = [index for index, description in found.items() if description is None]
    if missing:
        shown = ",".join(map(str, missing[:50])) + (",..." if missing[50:] else "")
        raise BadData(
            f"{plan.output}: {len(missing)} of {len(found)} shards are missing, or "
            f"made of other files or settings: {shown}; run their tasks (again)"
        )
    return [description for description in found.values() if description is not None]


def raise_if_rejected(descriptions: Iterable[dict]) -> None:
    """Raises `BadData` for the first rejected or doubtful case: with --strict, those of
    an earlier run are fatal as well."""
    for description in descriptions:
        for row in description["rejected"]:
            raise BadData(row["reason"])
        for case in description["cases"]:
            refuse_doubtful(case, case["image"]["file"])


def write_manifest(plan: Plan, descriptions: Sequence[dict]) -> None:
    """Writes what readers of the folder need, the manifest last; prints a summary.

    Raises `BadData` at its end where cases were left out: the others are ready then.
    """
    output, arguments = plan.output, plan.arguments
    rejected = [row for description in descriptions for row in description["rejected"]]
    cases = [case for description in descriptions for case in description["cases"]]
    for name in ("manifest.json", "rejected.json"):
        (output / name).unlink(missing_ok=True)
    if rejected:
        write_json(output / "rejected.json", {"rejected": rejected})
    reasons = grouped(rejected)
    if not cases:
        if len(reasons) > 1:
            print(*reasons, sep="\n", file=sys.stderr)
        raise BadData(
            f"{arguments.input}: no case could be used; the first: "
            f"{rejected[0]['reason']}"
        )
    patients = find_patients(cases, arguments.patients, arguments.patient_pattern)
    splits = make_splits(
        [case["case_id"] for case in cases],
        seed=arguments.seed,
        test_fraction=arguments.test_fraction,
        validation_fraction=arguments.validation_fraction,
        folds=arguments.folds,
        units=patients.units,
    )
    wrong = None
    try:
        said = write_splits(output, splits, arguments.seed, patients)
    except BadData as error:  # of a user's file: the data is ready nevertheless
        said, wrong = [], error
    write_json(
        output / "manifest.json",
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "organs": dict(LabelMap.numbered(plan.organs).values),
            **({"ignore_value": IGNORED} if plan.ignored else {}),
            "spacing_mm": list(arguments.spacing_mm),
            "axes": AXES,
            "settings": plan.settings,
            "shards": [
                {key: shard[key] for key in ("file", "records", "bytes", "sha256")}
                for shard in descriptions
            ],
            "cases": cases,
        },
    )
    _print_summary(output, cases, [*plan.organs], [*patients.summary(), *said])
    _print_doubts(cases)
    if rejected:
        lines = "".join(f"\n  {line}" for line in reasons)
        print(f"left out {len(rejected)}:{lines}", file=sys.stderr)
    # Last, so that it is found below whatever was warned of.
    print("next:", train_command(output), flush=True)
    if wrong is not None:
        raise wrong
    if rejected:
        raise BadData(
            f"{output / 'rejected.json'}: {len(rejected)} of "
            f"{len(rejected) + len(cases)} cases were left out, for the reasons above"
        )


def _print_summary(
    output: Path, cases: Sequence[dict], organs: Sequence[str], lines: Sequence[str]
) -> None:
    """Prints shapes and volumes of organs.

    `lines` say how patients were told apart, and what became of splits.json.
    """
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
    if line := passed_over_line(cases):
        print(line)
    print(*map(with_urls, lines), sep="\n", flush=True)


def passed_over_line(cases: Iterable[dict]) -> str:
    """Says what was passed over in the folders of DICOM series; "" for nothing."""
    kinds: Counter[str] = Counter()
    for case in cases:
        kinds.update(case.get("passed_over", {}))
    return f"no slices, passed over: {counted(kinds)}" if kinds else ""


def _print_doubts(cases: Iterable[Mapping]) -> None:
    """Prints a line for each kind of doubt about scans and label maps."""
    found = {
        case["case_id"]: [checks.Finding(*d) for d in case.get("doubts", {}).items()]
        for case in cases
    }
    if lines := checks.grouped(found):
        look = "python -m data_prep.verify shows these cases, --strict refuses them"
        print(*lines, look, sep="\n", file=sys.stderr)


def train_command(output: Path) -> str:
    """The command that trains on the folder, for a shell.

    It names a split where the folder lacks that of the default config, and no classes:
    they are the organs of the data.
    """
    # Imported late: only this line needs the config and its library.
    from configs import base

    words = [
        "--config=configs/attention_unet.py",
        f"--data={shown(output)}",
        "--workdir=RUN",
    ]
    splits = read_json(output / "splits.json")["splits"]
    default = base.get_config().data.split
    usable = [name for name, parts in splits.items() if parts["train"]]
    if default not in usable and usable:
        # 75_25 comes first, of the paper; that of --test_fraction is the user's.
        chosen = next((name for name in usable if name != "75_25"), usable[0])
        words.append(f"--config.data.split={chosen}")
    return shlex.join(["python", "-m", "launch.train", *words])
