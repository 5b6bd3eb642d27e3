r"""Measures how many cases per second the input pipeline delivers.

    python -m launch.benchmark input --size=tiny
    python -m launch.benchmark input --size=paper --threads=2 \
        --against=nnunet,monai --peer_python=OTHER/bin/python

Ours: from shards to arrays on the device, cut out of whole scans ("scans") and out of
records as large as the crop ("crops"). Warping, flipping and normalising are a part of
the train step on the device; they are timed apart. Peers: their own loader with its
augmentation on the same cores. They need `pip install -e '.[benchmark]'` where
--peer_python is.
"""

import dataclasses
import datetime
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.files import temporary_folder
from launch import cli
from launch.benchmark import workload
from launch.benchmark.peers import loaders
from launch.flag_types import names_of, positive

ROOT = Path(__file__).resolve().parents[2]

FLAGS = cli.Flags(__doc__)
FLAGS.add("size", str, "small", "paper, small or tiny.")
FLAGS.add("rounds", positive, 3, "Rounds of each, alternating.")
FLAGS.add("batches", positive, 16, "Batches in a round.")
FLAGS.add("threads", positive, 2, "Threads or processes of each.")
FLAGS.add(
    "against", names_of(loaders.NAMES, may_be_empty=True), (), "nnunet, monai or both."
)
FLAGS.add("peer_python", str, sys.executable, "Python interpreter that has the peers.")
FLAGS.add("output", Path, None, "File for all measurements as JSON.")


def main(values: cli.Values) -> int:
    size = workload.find_size(values.size, backend="cpu")
    with temporary_folder("attunet_input_") as folder:
        peer_scans = folder / "npz"
        peer_scans.mkdir()
        for number in range(size.scans if values.against else 0):
            case = workload.make_case(number, size.scan_shape)
            np.savez(
                peer_scans / case.case_id, image_hu=case.image_hu, label=case.label
            )
        ours = _ours(folder, size, values.threads)
        rounds: list[dict[str, float]] = []
        versions: dict[str, str] = {}
        for number in range(values.rounds):
            print(f"round {number + 1}", file=sys.stderr, flush=True)
            seconds = {name: run(values.batches) for name, run in ours.items()}
            for name in values.against:
                answer = _peer(name, peer_scans, size, values)
                seconds[name] = answer["seconds"]
                versions |= answer["versions"]
            rounds.append(seconds)
    cases = values.batches * size.batch
    document = {
        "format": "attunet_jax.benchmark_input",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "size": size.name,
        "threads": values.threads,
        "cases_a_round": cases,
        "versions": versions,
        "cases_per_s": [{k: cases / s for k, s in r.items()} for r in rounds],
    }
    print(to_markdown(document))
    if values.output:
        values.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _ours(
    folder: Path, size: workload.Size, threads: int
) -> dict[str, Callable[[int], float]]:
    """Returns name -> function from a number of batches to their seconds."""
    import jax  # late: --help needs no jax

    from attunet_jax.distributed.mesh import to_global
    from launch.benchmark.ours import Ours

    def feed(ours: Ours, count: int) -> float:
        batches = ours.batches()
        for _ in range(count):  # warm-up
            jax.block_until_ready(to_global(next(batches), ours.mesh))
        start = time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(to_global(next(batches), ours.mesh))
        seconds = time.perf_counter() - start
        batches.close()
        return seconds

    runs: dict[str, Callable[[int], float]] = {}
    for name, shape in (("scans", size.scan_shape), ("crops", size.shape)):
        target = folder / name
        target.mkdir()
        sized = dataclasses.replace(size, scan_shape=shape)
        config = workload.make_config("unet", sized, "float32")
        config.data.threads = threads
        if name == "crops":
            config.data.read_shape = size.shape
        ours = Ours(config, workload.make_dataset(target, sized), jax.devices()[0])
        runs[f"attunet_jax, {name}"] = functools.partial(feed, ours)
        if name == "scans":
            train_step: Any = ours.experiment.train_step
            augment = jax.jit(train_step.keywords["crops"])
            batches = ours.batches()
            batch = to_global(next(batches), ours.mesh)
            batches.close()
            jax.block_until_ready(augment(batch, jax.random.key(0)))

            def warp(count: int, batch: Any = batch, augment: Any = augment) -> float:
                start = time.perf_counter()
                for number in range(count):
                    jax.block_until_ready(augment(batch, jax.random.key(number)))
                return time.perf_counter() - start

            runs["augmentation on this device alone"] = warp
    return runs


def _peer(name: str, scans: Path, size: workload.Size, values: Any) -> dict[str, Any]:
    """Returns seconds and versions of one round of a peer."""
    patch = ",".join(map(str, size.shape))
    words = [name, scans, patch, size.batch, values.threads, values.batches]
    module = "launch.benchmark.peers.loaders"
    finished = subprocess.run(
        [values.peer_python, "-m", module, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        message = (finished.stderr.strip() or "no message").splitlines()[-1]
        raise BadData(
            f"{name} ended with status {finished.returncode}: {message}; it needs "
            f"`pip install -e '.[benchmark]'` where {values.peer_python} is"
        )
    return json.loads(finished.stdout.strip().splitlines()[-1])


def to_markdown(document: dict[str, Any]) -> str:
    """Returns the table: medians over the rounds, ratios within each round."""
    rounds = document["cases_per_s"]
    versions = "".join(f"; {k} {v}" for k, v in document["versions"].items())
    lines = [
        f"{document['date']}; {document['cores']} cores, {document['threads']} threads "
        f"or processes; size `{document['size']}`; {len(rounds)} rounds of "
        f"{document['cases_a_round']} cases{versions}",
        "",
        "| by | cases/s | ours from scans / this |",
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
