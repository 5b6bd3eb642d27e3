"""Two masks of one organ and the spacing go in; distances of their surfaces in mm out.

Distances are those of google-deepmind/surface-distance: surfaces run between voxels,
each piece weighs as much as its area (surfels.py), and a piece's distance is that to
the nearest piece of the other surface. `surface_distance_mm`, the "S2S" of the
paper's tables here, is the mean of the two one-way area-weighted means. Surfaces of
masks are staircases and the nearest stair is what counts: such distances fall short
of those between smooth surfaces, by half a voxel where these are far apart.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import check_masks
from attunet_jax.evaluate.surfels import surface


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of both surfaces' pieces to the other surface, and their areas.

    A side without a surface has empty arrays; distances to it are infinite.
    """

    truth_to_prediction_mm: np.ndarray  # float64 [n], ascending
    truth_areas_mm2: np.ndarray  # float64 [n], of the same pieces
    prediction_to_truth_mm: np.ndarray  # float64 [m], ascending
    prediction_areas_mm2: np.ndarray  # float64 [m]

    @property
    def defined(self) -> bool:
        """Whether both masks have a surface."""
        return bool(self.truth_areas_mm2.size and self.prediction_areas_mm2.size)

    def one_way_means_mm(self) -> tuple[float, float] | None:
        """Area-weighted mean distances (truth to prediction, prediction to truth)."""
        if not self.defined:
            return None
        return (
            float(
                np.average(self.truth_to_prediction_mm, weights=self.truth_areas_mm2)
            ),
            float(
                np.average(
                    self.prediction_to_truth_mm, weights=self.prediction_areas_mm2
                )
            ),
        )

    def surface_distance_mm(self) -> float | None:
        """Mean of the two one-way means; None where either mask is empty."""
        means = self.one_way_means_mm()
        return None if means is None else sum(means) / 2

    def hausdorff_mm(self, percent: float) -> float | None:
        """The larger of the two one-way percentiles by area (95: robust Hausdorff)."""
        if not self.defined:
            return None
        return max(
            _percentile(self.truth_to_prediction_mm, self.truth_areas_mm2, percent),
            _percentile(
                self.prediction_to_truth_mm, self.prediction_areas_mm2, percent
            ),
        )

    def surface_dice(self, tolerance_mm: float) -> float | None:
        """Share of both surfaces' area that lies within the tolerance of the other.

        0 where one mask is empty (a missed organ must count), None where both are.
        """
        area = self.truth_areas_mm2.sum() + self.prediction_areas_mm2.sum()
        if not area:
            return None
        truth = self.truth_areas_mm2[self.truth_to_prediction_mm <= tolerance_mm]
        prediction = self.prediction_areas_mm2[
            self.prediction_to_truth_mm <= tolerance_mm
        ]
        return float((truth.sum() + prediction.sum()) / area)


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm
) -> SurfaceDistances:
    """Measures the surfaces of two masks against each other.

    Args:
      truth, prediction: bool [D, H, W]. Time and memory grow with the box around
        both, not with the array.
      spacing_mm: 3 lengths, in the order of the axes.

    Raises:
      ValueError: masks not 3-D, not boolean or of different shapes; spacing not three
        positive finite numbers.
    """
    check_masks(truth, prediction)
    spacing = np.asarray(spacing_mm, float)
    if truth.ndim != 3 or spacing.shape != (3,):
        raise ValueError(f"a mask of shape {truth.shape} with spacing {spacing_mm}")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ValueError(f"spacing {spacing_mm} is not three positive numbers")
    box = bounding_box(truth | prediction)
    truth_borders, truth_areas = surface(truth[box], spacing)
    prediction_borders, prediction_areas = surface(prediction[box], spacing)
    to_prediction = _distances_mm(truth_borders, prediction_borders, spacing)
    to_truth = _distances_mm(prediction_borders, truth_borders, spacing)
    forth, back = np.argsort(to_prediction), np.argsort(to_truth)
    return SurfaceDistances(
        truth_to_prediction_mm=to_prediction[forth],
        truth_areas_mm2=truth_areas[forth],
        prediction_to_truth_mm=to_truth[back],
        prediction_areas_mm2=prediction_areas[back],
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is True; an empty one where nothing is."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        (hits,) = np.nonzero(mask.any(axis=others))
        box.append(slice(hits[0], hits[-1] + 1) if hits.size else slice(0, 0))
    return tuple(box)


def _distances_mm(here: np.ndarray, there: np.ndarray, spacing_mm) -> np.ndarray:
    """From each True cell of `here` to the nearest True cell of `there`: float64."""
    if not there.any():  # a distance transform without a target invents one
        return np.full(np.count_nonzero(here), np.inf)
    nearest_mm = ndimage.distance_transform_edt(~there, sampling=spacing_mm)
    return np.asarray(nearest_mm)[here]


def _percentile(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """The distance that `percent` of the area does not exceed; distances ascend."""
    share = np.cumsum(areas) / areas.sum()
    index = np.searchsorted(share, percent / 100)
    return float(distances[min(index, distances.size - 1)])
