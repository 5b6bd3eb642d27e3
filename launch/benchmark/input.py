"""Measures how many cases a second the input pipeline feeds, beside other libraries.

    python -m launch.benchmark input
    python -m launch.benchmark input --size=paper --threads=2 \\
        --against=nnunet,monai --peer_python=OTHER/bin/python

Ours: shards to arrays on the device, cut out of whole scans ("scans") and out of
records that are as large as the crop ("crops"); what remains, warping, flipping and
normalising, is a part of the train step on the device, and timed apart as it runs here.
Peers: their own loader with its augmentation, on the same cores. nnunet needs nnunetv2,
monai MONAI, where --peer_python is: the extra attunet_jax[benchmark].
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadArguments, BadData
from launch.benchmark.command_line import Parser
from launch.benchmark.peers.loaders import NAMES

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
    arguments = _parse(argv)
    from launch.benchmark import scans, workload  # late: these import jax

    size = workload.find_size(arguments.size, backend="cpu")
    with tempfile.TemporaryDirectory(prefix="attunet_input_") as temporary:
        folder = Path(temporary)
        peer_scans = folder / "npz"
        peer_scans.mkdir()
        if arguments.against:
            for number in range(size.scans):
                case = scans.make_case(number, size.scan_shape)
                np.savez(
                    peer_scans / case.case_id, image_hu=case.image_hu, label=case.label
                )
        ours = _ours(folder, size, arguments)
        rounds: list[dict[str, float]] = []
        versions: dict[str, str] = {}
        for number in range(arguments.rounds):
            print(f"round {number + 1}", file=sys.stderr, flush=True)
            figures = {name: run(arguments.batches) for name, run in ours.items()}
            for name in arguments.against:
                answer = _peer(name, peer_scans, size, arguments)
                figures[name] = answer["seconds"]
                versions |= answer["versions"]
            rounds.append(figures)
    cases = arguments.batches * size.batch
    document = {
        "format": "attunet_jax.benchmark_input",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "size": size.name,
        "threads": arguments.threads,
        "cases_a_round": cases,
        "versions": versions,
        "cases_per_s": [{k: cases / s for k, s in r.items()} for r in rounds],
    }
    print(to_markdown(document))
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _ours(folder: Path, size: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Name -> seconds of so many batches."""
    import dataclasses

    import jax

    from attunet_jax.distributed.mesh import to_global
    from launch.benchmark import scans, workload
    from launch.benchmark.ours import Ours

    runs: dict[str, Any] = {}
    for name, shape in (("scans", size.scan_shape), ("crops", size.shape)):
        place = folder / name
        place.mkdir()
        here = dataclasses.replace(size, scan_shape=shape)
        config = workload.config_of("unet", here, "float32")
        config.data.threads = arguments.threads
        if name == "crops":
            config.data.read_shape = size.shape
        ours = Ours(config, scans.make_dataset(place, here), jax.devices()[0])

        def feed(count: int, ours: Any = ours) -> float:
            batches = ours.batches()
            for _ in range(count):
                jax.block_until_ready(to_global(next(batches), ours.mesh))
            began = time.perf_counter()
            for _ in range(count):
                jax.block_until_ready(to_global(next(batches), ours.mesh))
            seconds = time.perf_counter() - began
            batches.close()
            return seconds

        runs[f"attunet_jax, {name}"] = feed
        if name == "scans":
            augment = jax.jit(ours.plan.train_step.keywords["crops"])
            batches = ours.batches()
            batch = to_global(next(batches), ours.mesh)
            batches.close()
            jax.block_until_ready(augment(batch, jax.random.key(0)))

            def warp(count: int, batch: Any = batch, augment: Any = augment) -> float:
                began = time.perf_counter()
                for number in range(count):
                    jax.block_until_ready(augment(batch, jax.random.key(number)))
                return time.perf_counter() - began

            runs["augmentation on this device alone"] = warp
    return runs


def _peer(name: str, scans: Path, size: Any, arguments: argparse.Namespace) -> dict:
    patch = ",".join(map(str, size.shape))
    words = [name, scans, patch, size.batch, arguments.threads, arguments.batches]
    done = subprocess.run(
        [
            arguments.peer_python,
            "-m",
            "launch.benchmark.peers.loaders",
            *map(str, words),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BadData(
            f"{name} ended with status {done.returncode}: {said}; it needs "
            f"attunet_jax[benchmark] where {arguments.peer_python} is"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def to_markdown(document: dict[str, Any]) -> str:
    """The table: medians over the rounds, ratios within each round."""
    rounds = document["cases_per_s"]
    versions = "".join(f"; {k} {v}" for k, v in document["versions"].items())
    lines = [
        f"{document['date']}; {document['cores']} cores, {document['threads']} threads "
        f"or processes; size `{document['size']}`; {len(rounds)} rounds of "
        f"{document['cases_a_round']} cases{versions}",
        "",
        "| by | cases/s | ours from scans / it |",
        "|---|---|---|",
    ]
    for name in rounds[0]:
        ratios = [r["attunet_jax, scans"] / r[name] for r in rounds]
        median = statistics.median(r[name] for r in rounds)
        lines.append(
            f"| {name} | {median:.3g} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("launch.benchmark input", __doc__)
    add = parser.add_argument
    add("--size", default="small", help="paper, small or tiny (default small)")
    add("--rounds", type=int, default=3, help="of each, in turn (default 3)")
    add("--batches", type=int, default=16, help="a round (default 16)")
    add("--threads", type=int, default=2, help="threads or processes (default 2)")
    add("--against", default="", help="nnunet, monai or both")
    add("--peer_python", default=sys.executable, help="interpreter that has them")
    add("--output", type=Path, help="file for all figures as JSON")
    arguments = parser.parse_args(argv)
    arguments.against = [n for n in arguments.against.split(",") if n]
    for name in arguments.against:
        if name not in NAMES:
            raise BadArguments(f"--against={name}: there are {', '.join(NAMES)}")
    if min(arguments.rounds, arguments.batches, arguments.threads) < 1:
        raise BadArguments("--rounds, --batches and --threads must be 1 or more")
    return arguments
