"""Dice, IoU, precision and recall of two masks (truth, prediction) of one organ.

An undefined score is None, never a number that could enter a mean:

| truth | prediction | dice, iou | precision | recall  |
|-------|------------|-----------|-----------|---------|
| some  | some       | defined   | defined   | defined |
| some  | empty      | 0         | 0         | 0       |
| empty | some       | 0         | 0         | None    |
| empty | empty      | None      | None      | None    |

A missed organ has precision 0, as in the published evaluation, so that it counts.
Without an organ in the truth there is no recall.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of two masks: true positives, false positives, false negatives."""

    tp: int
    fp: int
    fn: int

    @property
    def truth_vox(self) -> int:
        return self.tp + self.fn

    @property
    def prediction_vox(self) -> int:
        return self.tp + self.fp

    @property
    def dice(self) -> float | None:
        return _ratio(2 * self.tp, self.truth_vox + self.prediction_vox)

    @property
    def iou(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        if not self.prediction_vox and self.truth_vox:
            return 0.0
        return _ratio(self.tp, self.prediction_vox)

    @property
    def recall(self) -> float | None:
        return _ratio(self.tp, self.truth_vox)


def overlap(truth: np.ndarray, prediction: np.ndarray) -> Overlap:
    """Counts the voxels of two boolean masks of one shape.

    Raises:
      ValueError: the masks are not boolean or differ in shape.
    """
    check_masks(truth, prediction)
    tp = int(np.count_nonzero(truth & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Overlap(tp=tp, fp=fp, fn=fn)


def check_masks(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raises ValueError unless both are boolean and of one shape."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != bool or prediction.dtype != bool:
        raise ValueError(f"masks are bool, not {truth.dtype} and {prediction.dtype}")


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
