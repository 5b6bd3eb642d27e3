"""Scores of a predicted label map: a JSON-ready row for each organ.

An undefined score is None; overlap.py and surface.py say which scores are undefined
when an organ is absent.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import overlap
from attunet_jax.evaluate.surface import contour_distance_mm, surface_distances

# The scores of a row, in the order of its keys.
METRICS = (
    "dice",
    "iou",
    "precision",
    "recall",
    "surface_distance_mm",
    "contour_distance_mm",
    "hausdorff95_mm",
    "surface_dice_2mm",
)


def measure_case(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    organs: Mapping[str, int],
    mask: np.ndarray | None = None,
) -> list[dict]:
    """Scores a predicted label map.

    Args:
      truth, prediction: integer labels [D, H, W] on one grid.
      spacing_mm: 3 lengths [D, H, W].
      organs: the label (1 or more) of each organ.
      mask: bool [D, H, W], False where nothing is known of the truth. Such voxels count
        in no score: as if neither map had an organ there, and without the surface that
        an organ has towards them.

    Returns:
      A row for each organ, in the order of `organs`: organ, the METRICS, truth_vox,
      prediction_vox, truth_ml, prediction_ml.

    Raises:
      ValueError: shapes differ, labels are not integers, or the spacing is not
        three positive numbers.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    if mask is not None:
        truth, prediction = (np.where(mask, x, 0) for x in (truth, prediction))
    # One pass over each map finds the boxes of all organs; the rest is done inside.
    boxes = [_boxes(labels, max(organs.values())) for labels in (truth, prediction)]
    voxel_ml = float(np.prod(np.asarray(spacing_mm, float))) / 1000
    rows = []
    for organ, label in organs.items():
        box = _union(*(of_map[label - 1] for of_map in boxes))
        masks = truth[box] == label, prediction[box] == label
        counts = overlap(*masks)
        known = None
        if mask is not None:  # a border of one voxel says what lies beside the organ
            wide = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
            masks = truth[wide] == label, prediction[wide] == label
            known = mask[wide]
        surfaces = surface_distances(*masks, spacing_mm, known)
        rows.append(
            {
                "organ": organ,
                "dice": counts.dice,
                "iou": counts.iou,
                "precision": counts.precision,
                "recall": counts.recall,
                "surface_distance_mm": surfaces.surface_distance_mm(),
                "contour_distance_mm": contour_distance_mm(*masks, spacing_mm, known),
                "hausdorff95_mm": surfaces.hausdorff_mm(95),
                "surface_dice_2mm": surfaces.surface_dice(tolerance_mm=2),
                "truth_vox": counts.truth_vox,
                "prediction_vox": counts.prediction_vox,
                "truth_ml": counts.truth_vox * voxel_ml,
                "prediction_ml": counts.prediction_vox * voxel_ml,
            }
        )
    return rows


def _boxes(labels: np.ndarray, largest: int) -> list[tuple[slice, ...] | None]:
    """The box around each label 1 .. largest; None where a label does not occur."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are integers, not {labels.dtype}")
    return ndimage.find_objects(labels, max_label=largest)


def _union(
    a: tuple[slice, ...] | None, b: tuple[slice, ...] | None
) -> tuple[slice, ...]:
    """The smallest box around both; an empty one if both are None."""
    if a is None or b is None:
        return a or b or (slice(0, 0),) * 3
    return tuple(
        slice(min(x.start, y.start), max(x.stop, y.stop))
        for x, y in zip(a, b, strict=True)
    )
