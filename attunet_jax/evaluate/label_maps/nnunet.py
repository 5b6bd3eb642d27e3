"""nnU-Net's summary.json of scored label maps, for what reads that file.

Keys and numbers are those of `compute_metrics_on_folder` in nnU-Net 2
(nnunetv2/evaluation/evaluate_predictions.py), NaN for what is undefined included.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_NUMBERS = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")


def nnunet_summary(rows: Iterable[Mapping]) -> dict:
    """Returns nnU-Net's summary of rows that `score_folders` made.

    Labels have their values in the truth: "1", and "(1, 2)" for a region. Counts are
    voxels. "mean" is over the cases that define a number, "foreground_mean" over the
    labels.
    """
    by_case: dict[str, list[Mapping]] = {}
    for row in rows:
        by_case.setdefault(row["case_id"], []).append(row)
    cases = [
        {
            "reference_file": of_case[0]["truth_file"],
            "prediction_file": of_case[0]["prediction_file"],
            "metrics": {_key(row["truth_values"]): _numbers(row) for row in of_case},
        }
        for of_case in by_case.values()
    ]
    labels = list(cases[0]["metrics"]) if cases else []
    means = {
        label: {
            number: _mean([case["metrics"][label][number] for case in cases])
            for number in _NUMBERS
        }
        for label in labels
    }
    return {
        "foreground_mean": {
            number: float(np.mean([of_label[number] for of_label in means.values()]))
            for number in _NUMBERS
        },
        "mean": means,
        "metric_per_case": cases,
    }


def nnunet_summary_text(rows: Iterable[Mapping]) -> str:
    """Returns the text of the file, as nnU-Net writes it."""
    return json.dumps(nnunet_summary(rows), indent=4, sort_keys=True)


def _key(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def _numbers(row: Mapping) -> dict[str, float]:
    n_ref, n_pred = row["truth_vox"], row["prediction_vox"]
    # Exact: the fraction is a double, and counts are far below 2**52.
    common = 0 if row["dice"] is None else round(row["dice"] * (n_ref + n_pred) / 2)
    either = n_ref + n_pred - common
    return {
        "Dice": 2 * common / (n_ref + n_pred) if either else math.nan,
        "IoU": common / either if either else math.nan,
        "FP": n_pred - common,
        "TP": common,
        "FN": n_ref - common,
        "TN": row["scored_vox"] - either,
        "n_pred": n_pred,
        "n_ref": n_ref,
    }


def _mean(numbers: Sequence[float]) -> float:
    defined = [number for number in numbers if not math.isnan(number)]
    return float(np.mean(defined)) if defined else math.nan
