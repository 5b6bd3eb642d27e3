r"""Measures the speed and memory of the preparation of scans, beside other libraries.

    python -m launch.benchmark preparation --size=tiny
    python -m launch.benchmark preparation --size=full --rounds=1 \
        --against=nnunet,monai --peer_python=OTHER/bin/python

Makes synthetic scans (--scans=DIR keeps them), then runs data_prep.prepare and each
peer on the same files, alternating, with equally many processes and the same new
spacing of 2 mm. nnunet is nnU-Net's own preprocessor (cubic), nnunet_linear the same
with linear interpolation, monai its LoadImaged, Orientationd, Spacingd,
ScaleIntensityRanged. Ours is timed with the start of the program, peers without. Peers
need `pip install -e '.[benchmark]'` where --peer_python is.
"""

import datetime
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import temporary_folder
from attunet_jax.volume import write_nifti
from launch import cli
from launch.benchmark.peers.preprocessors import NAMES
from launch.benchmark.process_memory import available, measure_process
from launch.benchmark.workload import ORGANS, make_case
from launch.flag_types import names_of, positive

OURS = "attunet_jax"
SPACING_MM = 2.0
SCAN_MM = (1.0, 0.78, 0.78)
# Number of scans, and the shape [D, H, W] of each.
SIZES = {
    "tiny": (3, (24, 48, 48)),
    "small": (8, (64, 192, 192)),
    "full": (24, (200, 512, 512)),
}

FLAGS = cli.Flags(__doc__)
FLAGS.add("size", str, "small", "Number and shape of the scans.", choices=tuple(SIZES))
FLAGS.add("count", positive, None, "Number of scans (default 3, 8 or 24).")
FLAGS.add("rounds", positive, 3, "Rounds of each, alternating.")
FLAGS.add("workers", positive, 2, "Processes of each.")
FLAGS.add("scans", Path, None, "Folder that keeps the scans; without: a temporary one.")
FLAGS.add(
    "against",
    names_of(NAMES, may_be_empty=True),
    (),
    "nnunet, nnunet_linear, monai, or several.",
)
FLAGS.add("peer_python", str, sys.executable, "Python interpreter that has the peers.")
FLAGS.add("output", Path, None, "File for all measurements as JSON.")


def main(values: cli.Values) -> int:
    if not available():
        raise BadArguments("memory of processes can be measured on Linux only")
    count, shape = SIZES[values.size]
    count = values.count or count
    with temporary_folder("attunet_preparation_") as folder:
        scans = values.scans or folder / "scans"
        make_scans(scans, count, shape)
        names = [OURS, *values.against]
        runs: dict[str, list[dict]] = {name: [] for name in names}
        for number in range(values.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                result = _run(name, scans, folder / "output", values)
                runs[name].append(result)
                print(
                    f"  {result['seconds']:.1f} s, {result['cpu_seconds']:.1f} s of "
                    f"CPU, {result['all_processes_bytes'] / 1e6:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
    document = {
        "format": "attunet_jax.benchmark_preparation",
        "version": 2,
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "scans": count,
        "shape": list(shape),
        "workers": values.workers,
        "runs": runs,
    }
    print(to_markdown(document))
    if values.output:
        values.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def make_scans(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Writes images/ and labels/; keeps scans that exist.

    Raises `BadArguments` where there are more than `count`.
    """
    for number in range(count):
        paths = [folder / k / f"scan_{number:03}.nii.gz" for k in ("images", "labels")]
        if all(path.exists() for path in paths):
            continue
        print(f"scan {number + 1} of {count}", file=sys.stderr, flush=True)
        case = make_case(number, shape)
        affine = np.diag([-SCAN_MM[2], -SCAN_MM[1], SCAN_MM[0], 1.0])
        for path, voxels in zip(paths, (case.image_hu, case.label), strict=True):
            write_nifti(path, voxels.transpose(2, 1, 0), affine)
    if (there := len(list((folder / "images").iterdir()))) != count:
        raise BadArguments(f"--scans={folder}: has {there} scans instead of {count}")


def _run(name: str, scans: Path, output: Path, values: Any) -> dict:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    workers = str(values.workers)
    if name == OURS:
        labels = ",".join(f"{organ}={value}" for organ, value in ORGANS.items())
        command = [
            *(sys.executable, "-m", "data_prep.prepare", "--source=nifti"),
            *(f"--input={scans}", f"--output={output}", f"--labels={labels}"),
            *(f"--spacing_mm={SPACING_MM}", f"--workers={workers}"),
        ]
    else:
        command = [
            *(values.peer_python, "-m", "launch.benchmark.peers.preprocessors"),
            *(name, str(scans.resolve()), str(output), workers, str(SPACING_MM)),
        ]
    finished = measure_process(command, output.with_name("log"))
    if finished.status:
        message = (finished.err.strip() or "no message").splitlines()[-1]
        raise BadData(f"{name} ended with status {finished.status}: {message}")
    result: dict[str, Any] = {
        "seconds": finished.seconds,
        "cpu_seconds": finished.cpu_seconds,
        "all_processes_bytes": finished.all_processes_bytes,
        "largest_process_bytes": finished.largest_process_bytes,
        "versions": {},
    }
    if name != OURS:  # a peer reports its own seconds, without its start
        result |= json.loads(finished.out.strip().splitlines()[-1])
    return result


def to_markdown(document: dict) -> str:
    """Returns the table: one line for each library, medians over the rounds."""
    scans, runs = document["scans"], document["runs"]
    by = "×".join(map(str, reversed(document["shape"])))
    scan_bytes = 2 * int(np.prod(document["shape"]))
    versions = {k: v for r in runs.values() for k, v in r[0]["versions"].items()}
    lines = [
        f"{document['date']}; {document['cores']} cores; {scans} scans of {by} int16 "
        f"with label maps, to {SPACING_MM:g} mm, {document['workers']} processes; "
        f"medians of {len(runs[OURS])} rounds in turn"
        + "".join(f"; {name} {number}" for name, number in versions.items()),
        "",
        "| by | scans/min | time / ours | CPU s/scan | CPU / ours | largest process | "
        "in scans | all processes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rounds in runs.items():
        seconds = statistics.median(r["seconds"] for r in rounds)
        cpu = statistics.median(r["cpu_seconds"] for r in rounds)
        ratio, cpu_ratio = (
            statistics.median(
                r[key] / ours[key] for r, ours in zip(rounds, runs[OURS], strict=True)
            )
            for key in ("seconds", "cpu_seconds")
        )
        largest = max(r["largest_process_bytes"] for r in rounds)
        together = max(r["all_processes_bytes"] for r in rounds)
        lines.append(
            f"| {name} | {60 * scans / seconds:.1f} | {ratio:.1f} | "
            f"{cpu / scans:.2f} | {cpu_ratio:.1f} | "
            f"{largest / 1e6:.0f} MB | {largest / scan_bytes:.1f} | "
            f"{together / 1e6:.0f} MB |"
        )
    return "\n".join(lines)
