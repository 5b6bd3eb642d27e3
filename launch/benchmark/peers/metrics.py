"""Scores the organs of two label maps with another library in a process of its own.

    python -m launch.benchmark.peers.metrics monai PAIR.npz

PAIR.npz holds `truth` and `prediction` [D, H, W], `spacing_mm` and `labels`. The last
line of output is {"seconds": s, "scores": {label: {metric: value}}, "versions": {}};
seconds are those from the arrays in memory to the scores of all labels.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

NAMES = ("surface_distance", "monai", "meshmetrics")
PACKAGES = {
    "surface_distance": "surface-distance",
    "monai": "monai",
    "meshmetrics": "pymeshmetrics",
}
TOLERANCES_MM = (1, 2, 3)

Pair = tuple[np.ndarray, np.ndarray, tuple[float, ...], list[int]]
Scores = dict[int, dict[str, float]]


def main() -> None:
    name, path = sys.argv[1:]
    with np.load(path) as stored:
        spacing = tuple(stored["spacing_mm"].tolist())
        pair = stored["truth"], stored["prediction"], spacing, stored["labels"].tolist()
    warnings.simplefilter("ignore")
    score = {
        "surface_distance": by_surface_distance,
        "monai": by_monai,
        "meshmetrics": by_meshmetrics,
    }[name]()
    start = time.perf_counter()
    scores = score(*pair)
    seconds = time.perf_counter() - start
    versions = {PACKAGES[name]: version(PACKAGES[name])}
    print(json.dumps({"seconds": seconds, "scores": scores, "versions": versions}))


def by_surface_distance() -> Callable[..., Scores]:
    if not hasattr(np, "Inf"):  # 0.1 is of the time of NumPy 1
        np.Inf = np.inf  # pyright: ignore
    import surface_distance as peer  # pyright: ignore[reportMissingImports]

    def of_masks(truth: np.ndarray, prediction: np.ndarray, spacing) -> dict:
        found = peer.compute_surface_distances(truth, prediction, spacing)
        shares = {
            f"surface_dice_{t}mm": peer.compute_surface_dice_at_tolerance(found, t)
            for t in TOLERANCES_MM
        }
        means = peer.compute_average_surface_distance(found)
        return {
            "surface_distance_mm": float(sum(means) / 2),
            "hausdorff95_mm": float(peer.compute_robust_hausdorff(found, 95)),
            **{name: float(share) for name, share in shares.items()},
        }

    def score(truth, prediction, spacing, labels) -> Scores:
        return {v: of_masks(truth == v, prediction == v, spacing) for v in labels}

    return score


def by_monai() -> Callable[..., Scores]:
    """One pass: edges and distances once for all scores, which MONAI's own repeat."""
    import torch  # pyright: ignore[reportMissingImports]
    from monai.metrics.utils import (  # pyright: ignore[reportMissingImports]
        get_edge_surface_distance,
    )

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def of_masks(truth: np.ndarray, prediction: np.ndarray, spacing) -> dict:
        _, (back, forth), _ = get_edge_surface_distance(
            torch.from_numpy(prediction),
            torch.from_numpy(truth),
            spacing=spacing,
            symmetric=True,
        )
        both = torch.cat([back, forth])
        quantiles = [float(torch.quantile(side, 0.95)) for side in (back, forth)]
        return {
            "surface_distance_mm": float(both.mean()),
            "hausdorff95_mm": max(quantiles),
            **{
                f"surface_dice_{t}mm": float((both <= t).float().mean())
                for t in TOLERANCES_MM
            },
        }

    def score(truth, prediction, spacing, labels) -> Scores:
        return {v: of_masks(truth == v, prediction == v, spacing) for v in labels}

    return score


def by_meshmetrics() -> Callable[..., Scores]:
    from meshmetrics import (  # pyright: ignore[reportMissingImports]
        compute_metrics_multilabel,
    )

    def score(truth, prediction, spacing, labels) -> Scores:
        found = compute_metrics_multilabel(
            truth,
            prediction,
            spacing=spacing,
            labels=labels,
            taus=[float(t) for t in TOLERANCES_MM],
            percentiles=(95,),
            metrics=("hd", "masd", "nsd"),
            verbose=False,
        )
        return {
            value: {
                "surface_distance_mm": float(of_label["MASD"]),
                "hausdorff95_mm": float(of_label["HD_95"]),
                **{
                    f"surface_dice_{t}mm": float(of_label[f"NSD_{float(t)}"])
                    for t in TOLERANCES_MM
                },
            }
            for value, of_label in found.items()
        }

    return score


if __name__ == "__main__":
    main()
