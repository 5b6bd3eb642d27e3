r"""Measures the speed of the scores, and how they agree with other libraries.

    taskset -c 0 python -m launch.benchmark metrics --truth=truth.nii.gz \
        --prediction=predicted.nii.gz --against=surface_distance,monai \
        --peer_python=OTHER/bin/python

Scores all labels of each pair of label maps, without the axial contour distance, and
lets each peer do the same in a process of its own, in turn. Times are those from arrays
in memory to scores. Peers need `pip install -e '.[benchmark]'` where --peer_python is:
surface_distance is google-deepmind's; monai takes edges and distances once for all
scores; meshmetrics measures between meshes, and is what the others are compared with.
"""

import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.metrics import METRICS, measure_case
from attunet_jax.files import temporary_folder
from attunet_jax.volume import read_labels, same_geometry
from launch import cli
from launch.benchmark.peers.metrics import NAMES
from launch.flag_types import names_of, positive

ROOT = Path(__file__).resolve().parents[2]
OURS, SAME_AREAS, REFERENCE = "ours", "ours, surface_distance", "meshmetrics"
COMPARED = (
    "surface_distance_mm",
    "hausdorff95_mm",
    "surface_dice_1mm",
    "surface_dice_2mm",
    "surface_dice_3mm",
)
CLOSE = 0.02

FLAGS = cli.Flags(__doc__)
FLAGS.add("truth", str, None, "Label maps, separated by commas.", required=True)
FLAGS.add("prediction", str, None, "As many, in the same order.", required=True)
FLAGS.add("rounds", positive, 3, "Rounds of each, alternating.")
FLAGS.add(
    "against",
    names_of(NAMES, may_be_empty=True),
    (),
    "surface_distance, monai, meshmetrics, or several.",
)
FLAGS.add("peer_python", str, sys.executable, "Python interpreter that has the peers.")
FLAGS.add("output", Path, None, "File for all measurements as JSON.")


def main(values: cli.Values) -> int:
    truths, predictions = values.truth.split(","), values.prediction.split(",")
    if len(truths) != len(predictions):
        raise BadArguments(
            f"--truth has {len(truths)} files and --prediction {len(predictions)}: "
            "each needs its other half, in the same order"
        )
    results = []
    for truth, prediction in zip(truths, predictions, strict=True):
        pair = _read(Path(truth), Path(prediction))
        with temporary_folder("attunet_metrics_") as folder:
            np.savez(folder / "pair.npz", allow_pickle=False, **pair)
            result = _measured(pair, folder / "pair.npz", values)
        results.append({"truth": truth, "prediction": prediction, **result})
    document = {
        "format": "attunet_jax.benchmark_metrics",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "pairs": results,
    }
    print(to_markdown(document))
    if values.output:
        values.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _read(truth: Path, prediction: Path) -> dict[str, np.ndarray]:
    """The arrays of a pair. Raises `BadData` for other grids or no common label."""
    one, other = (read_labels(path) for path in (truth, prediction))
    if difference := same_geometry(one, other, 0.1):
        raise BadData(f"{prediction}: not on the grid of {truth}: {difference}")
    both = np.intersect1d(np.unique(one.voxels), np.unique(other.voxels))
    if not both[both > 0].size:
        raise BadData(f"{prediction}: no label that {truth} has too")
    return {
        "truth": np.ascontiguousarray(one.voxels),
        "prediction": np.ascontiguousarray(other.voxels),
        "spacing_mm": np.asarray(one.spacing_mm, float),
        "labels": both[both > 0].astype(int),
    }


def _measured(pair: Mapping[str, np.ndarray], path: Path, values: Any) -> dict:
    seconds: dict[str, list[float]] = {}
    scores: dict[str, dict[str, dict]] = {}
    versions: dict[str, str] = {}
    for number in range(values.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        scores[OURS] = _ours(pair, "mesh")
        seconds.setdefault(OURS, []).append(time.perf_counter() - start)
        for name in values.against:
            answer = _peer(name, path, values.peer_python)
            seconds.setdefault(name, []).append(answer["seconds"])
            scores[name] = answer["scores"]
            versions |= answer["versions"]
    scores[SAME_AREAS] = _ours(pair, "surface_distance")
    return {
        "shape": list(pair["truth"].shape),
        "spacing_mm": pair["spacing_mm"].tolist(),
        "seconds": seconds,
        "scores": scores,
        "versions": versions,
    }


def _ours(pair: Mapping[str, np.ndarray], definition: Any) -> dict[str, dict]:
    organs = {str(label): int(label) for label in pair["labels"]}
    rows = measure_case(
        pair["truth"],
        pair["prediction"],
        pair["spacing_mm"],
        organs,
        definition=definition,
        metrics=METRICS.keys() - {"contour_distance_mm"},
    )
    return {row["organ"]: {name: row[name] for name in COMPARED} for row in rows}


def _peer(name: str, path: Path, python: str) -> dict:
    command = [python, "-m", "launch.benchmark.peers.metrics", name, str(path)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise BadArguments(f"--peer_python={python}: {error.strerror}") from None
    if done.returncode:
        message = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BadData(f"{name} ended with status {done.returncode}: {message}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def to_markdown(document: Mapping) -> str:
    """Returns the times of each pair, and the agreement over all pairs and organs."""
    pairs = document["pairs"]
    versions = {k: v for pair in pairs for k, v in pair["versions"].items()}
    about = [document["date"], f"{document['cores']} cores"]
    about += [f"{name} {number}" for name, number in versions.items()]
    parts = ["; ".join(about), _times(pairs)]
    if REFERENCE in pairs[0]["scores"]:
        parts.append(_agreement(pairs))
    return "\n\n".join(parts)


def _times(pairs: Sequence[Mapping]) -> str:
    lines = [
        "| prediction | voxels | labels | by | time | ours / this |",
        "|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        by = "×".join(map(str, reversed(pair["shape"])))
        ours = pair["seconds"][OURS]
        for name, seconds in pair["seconds"].items():
            ratios = [a / b for a, b in zip(ours, seconds, strict=True)]
            ratio = f"{statistics.median(ratios):.3f}" if name != OURS else ""
            lines.append(
                f"| {Path(pair['prediction']).name} | {by} | "
                f"{len(pair['scores'][OURS])} | {name} | "
                f"{statistics.median(seconds):.2f} s | {ratio} |"
            )
    return "\n".join(lines)


def _agreement(pairs: Sequence[Mapping]) -> str:
    """Differences from MeshMetrics, by metric and library, and where ours are large."""
    names = [name for name in pairs[0]["scores"] if name != REFERENCE]
    names.sort(key=lambda name: (not name.startswith(OURS), name))
    lines = [
        f"| median (largest) difference from {REFERENCE} | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    apart = []
    for metric in COMPARED:
        cells = []
        for name in names:
            found = _differences(pairs, name, metric)
            sizes = [abs(difference) for _, difference in found]
            cells.append(f"{statistics.median(sizes):.1%} ({max(sizes):.1%})")
            if name == OURS:
                far = [(of, d) for of, d in found if abs(d) > CLOSE]
                texts = [f"{of} {d:+.1%}" for of, d in far]
                apart.append(
                    f"{metric}: {len(found) - len(far)} of {len(found)} within "
                    f"{CLOSE:.0%}" + (f"; not {', '.join(texts)}" if texts else "")
                )
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Ours and {REFERENCE}:", "", *map("- {}".format, apart)]
    )


def _differences(
    pairs: Sequence[Mapping], name: str, metric: str
) -> list[tuple[str, float]]:
    """The relative differences from MeshMetrics, with prediction and label."""
    found = []
    for pair in pairs:
        for label, scores in pair["scores"][REFERENCE].items():
            expected = scores[metric]
            value = pair["scores"][name][label][metric]
            of = f"{Path(pair['prediction']).name.partition('.')[0]} {label}"
            found.append((of, value / expected - 1 if expected else float(value != 0)))
    return found
