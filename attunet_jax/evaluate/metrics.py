"""Scores of a predicted label map: a JSON-ready row for each organ.

An undefined score is None; overlap.py and surface.py say which scores are undefined
when an organ is absent.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.contours import contour_distance_mm
from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.overlap import Overlap, overlap
from attunet_jax.evaluate.surface import bounding_box, surface_distances
from attunet_jax.evaluate.surfels import Definition

__all__ = ["METRICS", "measure_case"]


def measure_case(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    organs: Mapping[str, int],
    mask: np.ndarray | None = None,
    *,
    definition: Definition = "mesh",
    metrics: Collection[str] = tuple(METRICS),
) -> list[dict]:
    """Scores a predicted label map.

    Args:
      truth, prediction: integer labels [D, H, W] on one grid.
      spacing_mm: 3 lengths [D, H, W].
      organs: the label (1 or more) of each organ.
      mask: bool [D, H, W], False where nothing is known of the truth. Such voxels count
        in no score: as if neither map had an organ there, and without the surface that
        an organ has towards them.
      definition: whose areas weigh the surfaces; see surfels.py.
      metrics: those of METRICS to compute; the contour distance takes longest.

    Returns:
      A row for each organ, in the order of `organs`: organ, the METRICS, truth_vox,
      prediction_vox, truth_ml, prediction_ml, diagonal_mm (of the box that the array
      fills, as a penalty where a distance is undefined), spacing_mm, definition.

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
    spacing = np.asarray(spacing_mm, float)
    voxel_ml, wanted = float(np.prod(spacing)) / 1000, set(metrics)
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
        row: dict = {"organ": organ, **_of_voxels(counts, voxel_ml)}
        if wanted & _OF_SURFACES:
            surfaces = surface_distances(
                *masks, spacing_mm, known, definition=definition
            )
            row["surface_distance_mm"] = surfaces.surface_distance_mm()
            row["hausdorff95_mm"] = surfaces.hausdorff_mm(95)
            for tolerance_mm in (1, 2, 3):
                share = surfaces.surface_dice(tolerance_mm)
                row[f"surface_dice_{tolerance_mm}mm"] = share
        if "contour_distance_mm" in wanted:
            row["contour_distance_mm"] = contour_distance_mm(*masks, spacing_mm, known)
        rows.append(
            {
                "organ": organ,
                **{name: row[name] for name in METRICS if name in wanted},
                "truth_vox": counts.truth_vox,
                "prediction_vox": counts.prediction_vox,
                "truth_ml": counts.truth_vox * voxel_ml,
                "prediction_ml": counts.prediction_vox * voxel_ml,
                "diagonal_mm": float(np.linalg.norm(truth.shape * spacing)),
                "spacing_mm": spacing.tolist(),
                "definition": definition,
            }
        )
    return rows


_OF_SURFACES = {
    "surface_distance_mm",
    "hausdorff95_mm",
    *(f"surface_dice_{tolerance_mm}mm" for tolerance_mm in (1, 2, 3)),
}


def _of_voxels(counts: Overlap, voxel_ml: float) -> dict[str, float | None]:
    """The scores that voxel counts decide."""
    error_vox = counts.prediction_vox - counts.truth_vox
    either, truth = counts.truth_vox + counts.prediction_vox, counts.truth_vox
    return {
        "dice": counts.dice,
        "iou": counts.iou,
        "precision": counts.precision,
        "recall": counts.recall,
        "volume_error_ml": error_vox * voxel_ml if either else None,
        "volume_error_percent": 100 * error_vox / truth if truth else None,
    }


def _boxes(labels: np.ndarray, largest: int) -> list[tuple[slice, ...] | None]:
    """The box around each label 1 .. largest; None where a label does not occur."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are integers, not {labels.dtype}")
    whole = bounding_box(labels)
    found = ndimage.find_objects(labels[whole], max_label=largest)
    return [
        box
        and tuple(
            slice(side.start + outer.start, side.stop + outer.start)
            for side, outer in zip(box, whole, strict=True)
        )
        for box in found
    ]


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
