"""Measures how fast scans are prepared, and in how much memory, beside other libraries.

    python -m launch.benchmark preparation
    python -m launch.benchmark preparation --size=full --rounds=1 \\
        --against=nnunet,monai --peer_python=OTHER/bin/python

Makes scans (noise as of a scanner, balls for organs; --scans=DIR keeps them for the
next time), then runs data_prep.prepare and each peer on the same files, in turn, with
equally many processes and the same new spacing of 2 mm. nnunet is nnU-Net's own
preprocessor (cubic), nnunet_linear the same with linear interpolation, monai its
LoadImaged, Orientationd, Spacingd, ScaleIntensityRanged. Ours is timed with the start
of the program, peers without. Peers need the extra attunet_jax[benchmark].
"""

import argparse
import datetime
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadArguments, BadData, Interrupted
from attunet_jax.volume import write_nifti
from launch.benchmark.command_line import Parser
from launch.benchmark.peers.preprocessors import NAMES
from launch.benchmark.process_memory import Watched, available, watch
from launch.benchmark.scans import ORGANS, make_case

OURS = "attunet_jax"
SPACING_MM = 2.0
SCAN_MM = (1.0, 0.78, 0.78)
# Scans, and the voxels [D, H, W] of each.
SIZES = {
    "tiny": (3, (24, 48, 48)),
    "small": (8, (64, 192, 192)),
    "full": (24, (200, 512, 512)),
}


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, _stop)
    arguments = _parse(argv)
    count, shape = SIZES[arguments.size]
    count = arguments.count or count
    with tempfile.TemporaryDirectory(prefix="attunet_preparation_") as temporary:
        folder = Path(temporary)
        scans = arguments.scans or folder / "scans"
        make_scans(scans, count, shape)
        names = [OURS, *arguments.against]
        runs: dict[str, list[dict]] = {name: [] for name in names}
        for number in range(arguments.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                figures = _run(name, scans, folder / "output", arguments)
                runs[name].append(figures)
                print(
                    f"  {figures['seconds']:.1f} s, {figures['cpu_seconds']:.1f} s of "
                    f"CPU, {figures['together_bytes'] / 1e6:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
    document = {
        "format": "attunet_jax.benchmark_preparation",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "scans": count,
        "shape": list(shape),
        "workers": arguments.workers,
        "runs": runs,
    }
    print(to_markdown(document))
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def make_scans(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """images/ and labels/; scans that are there are kept. Raises `BadArguments` where
    there are more."""
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
        raise BadArguments(f"--scans={folder}: has {there} scans, {count} are wanted")


def _run(name: str, scans: Path, output: Path, arguments: argparse.Namespace) -> dict:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    workers = str(arguments.workers)
    if name == OURS:
        labels = ",".join(f"{organ}={value}" for organ, value in ORGANS.items())
        command = [
            *(sys.executable, "-m", "data_prep.prepare", "--source=nifti"),
            *(f"--input={scans}", f"--output={output}", f"--labels={labels}"),
            *(f"--spacing_mm={SPACING_MM}", f"--workers={workers}"),
        ]
    else:
        command = [
            *(arguments.peer_python, "-m", "launch.benchmark.peers.preprocessors"),
            *(name, str(scans.resolve()), str(output), workers, str(SPACING_MM)),
        ]
    ended = watch(command, output.with_name("log"))
    if ended.status:
        said = (ended.err.strip() or "no message").splitlines()[-1]
        raise BadData(f"{name} ended with status {ended.status}: {said}")
    return _figures(name, ended)


def _figures(name: str, ended: Watched) -> dict:
    figures = {
        "seconds": ended.seconds,
        "cpu_seconds": ended.cpu_seconds,
        "together_bytes": ended.together_bytes,
        "largest_bytes": ended.largest_bytes,
        "versions": {},
    }
    if name != OURS:
        figures |= json.loads(ended.out.strip().splitlines()[-1])
    return figures


def to_markdown(document: dict) -> str:
    """The table, one row for each library: medians over the rounds."""
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
        largest = max(r["largest_bytes"] for r in rounds)
        together = max(r["together_bytes"] for r in rounds)
        lines.append(
            f"| {name} | {60 * scans / seconds:.1f} | {ratio:.1f} | "
            f"{cpu / scans:.2f} | {cpu_ratio:.1f} | "
            f"{largest / 1e6:.0f} MB | {largest / scan_bytes:.1f} | "
            f"{together / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("launch.benchmark preparation", __doc__)
    add = parser.add_argument
    add("--size", choices=sorted(SIZES), default="small", help="default small")
    add("--count", type=int, help="scans (default 3, 8 and 24)")
    add("--rounds", type=int, default=3, help="of each, in turn (default 3)")
    add("--workers", type=int, default=2, help="processes of each (default 2)")
    add("--scans", type=Path, help="folder for the scans, kept (default: none)")
    add("--against", default="", help="nnunet, nnunet_linear, monai; several by commas")
    add("--peer_python", default=sys.executable, help="interpreter that has them")
    add("--output", type=Path, help="file for all figures as JSON")
    arguments = parser.parse_args(argv)
    arguments.against = [n for n in arguments.against.split(",") if n]
    for name in arguments.against:
        if name not in NAMES:
            raise BadArguments(f"--against={name}: there are {', '.join(NAMES)}")
    if min(arguments.rounds, arguments.workers, arguments.count or 1) < 1:
        raise BadArguments("--rounds, --workers and --count must be 1 or more")
    if not available():
        raise BadArguments("memory of processes can be measured on Linux only")
    return arguments


def _stop(*_: object) -> None:
    raise Interrupted("SIGTERM: stopped; nothing was written")
