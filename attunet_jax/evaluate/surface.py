"""Distances between the surfaces of two masks of one organ, in mm, in 3-D.

As in google-deepmind/surface-distance: a surface is cut into pieces (surfels.py), each
with an area and a place, and its distance is that to the nearest piece of the other
surface. The mean of the two one-way area-weighted means is the "S2S" of the
tables. Surfaces of masks are staircases, so these distances are shorter than those
between smooth surfaces, by up to half a voxel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from attunet_jax.evaluate.overlap import check_masks
from attunet_jax.evaluate.surfels import Definition, areas_mm2, cell_codes

# Most pieces have one of the other surface among the cells so near, which are looked at
# first; empty cells so wide lie around the box.
NEAR_CELLS = 2
# Fewer pieces than this are not worth looking around for.
FEW_PIECES = 256
# A distance transform takes about as long for so many cells as a tree for one piece.
CELLS_PER_PIECE = 5


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
        """Area-weighted mean distances (truth to prediction, prediction to truth).

        None where either mask is empty.
        """
        if not self.defined:
            return None
        forth = np.average(self.truth_to_prediction_mm, weights=self.truth_areas_mm2)
        back = np.average(
            self.prediction_to_truth_mm, weights=self.prediction_areas_mm2
        )
        return float(forth), float(back)

    def surface_distance_mm(self) -> float | None:
        """Mean of the two one-way means; None where either mask is empty."""
        means = self.one_way_means_mm()
        return None if means is None else sum(means) / 2

    def hausdorff_mm(self, percent: float) -> float | None:
        """The larger of the two one-way percentiles by area (95: robust Hausdorff).

        None where either mask is empty.
        """
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
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    known: np.ndarray | None = None,
    *,
    definition: Definition = "mesh",
) -> SurfaceDistances:
    """Measures the distances between the surfaces of two masks.

    Args:
      truth, prediction: bool [D, H, W]. Time and memory grow with the box around
        both, not with the array.
      spacing_mm: 3 lengths, in the order of the axes.
      known: bool [D, H, W]; both masks are False where it is. The pieces of surface
        beside such voxels are no borders of an organ: their own distances are left
        out, and others are measured to them as well.

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
    codes = [cell_codes(np.pad(mask[box], NEAR_CELLS)) for mask in (truth, prediction)]
    cells = [code + np.uint8(1) > 1 for code in codes]  # neither 0 nor 255
    pieces = [np.flatnonzero(of_mask) for of_mask in cells]
    to_prediction = _nearest_mm(pieces[0], cells[1], pieces[1], spacing)
    to_truth = _nearest_mm(pieces[1], cells[0], pieces[0], spacing)
    table = areas_mm2(tuple(spacing.tolist()), definition)
    truth_areas, prediction_areas = (
        table[code.ravel()[of_mask]]
        for code, of_mask in zip(codes, pieces, strict=True)
    )
    if known is not None:
        window = tuple(slice(side.start, side.stop + 1) for side in box)
        beside = np.pad(cell_codes(~known)[window] != 0, NEAR_CELLS).ravel()
        kept = ~beside[pieces[0]]
        to_prediction, truth_areas = to_prediction[kept], truth_areas[kept]
        kept = ~beside[pieces[1]]
        to_truth, prediction_areas = to_truth[kept], prediction_areas[kept]
    forth, back = np.argsort(to_prediction), np.argsort(to_truth)
    return SurfaceDistances(
        truth_to_prediction_mm=to_prediction[forth],
        truth_areas_mm2=truth_areas[forth],
        prediction_to_truth_mm=to_truth[back],
        prediction_areas_mm2=prediction_areas[back],
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Returns the smallest box around what is not 0; an empty one without any.

    Args:
      mask: bool or integers [D, H, W].
    """
    any_hw, any_dw = (np.bitwise_or.reduce(mask, axis=axis) for axis in (0, 1))
    box = []
    for line in (any_dw.any(1), any_hw.any(1), any_hw.any(0)):
        (hits,) = np.nonzero(line)
        box.append(slice(hits[0], hits[-1] + 1) if hits.size else slice(0, 0))
    return tuple(box)


def _nearest_mm(
    pieces: np.ndarray,
    others: np.ndarray,
    other_pieces: np.ndarray,
    spacing_mm: np.ndarray,
) -> np.ndarray:
    """Distance of each piece of a surface to the nearest of the other.

    Args:
      pieces: flat indices of cells.
      others: bool [D, H, W], the cells of the other surface; `other_pieces` their flat
        indices.

    Returns:
      float64 [n]; infinite where the other surface has no pieces.
    """
    if not other_pieces.size:
        return np.full(pieces.size, np.inf)
    distances, far = _look_around(pieces, others, spacing_mm)
    if not far.size:
        return distances
    places = np.array(np.unravel_index(pieces[far], others.shape))
    if (far.size + other_pieces.size) * CELLS_PER_PIECE > others.size:
        indices = ndimage.distance_transform_edt(
            ~others, sampling=spacing_mm, return_distances=False, return_indices=True
        )
        nearest = np.asarray(indices)[:, *places]
    else:
        other_places = np.array(np.unravel_index(other_pieces, others.shape))
        tree = KDTree(
            other_places.T * spacing_mm,
            leafsize=32,
            balanced_tree=False,
            compact_nodes=False,
        )
        _, index = tree.query(places.T * spacing_mm)
        nearest = other_places[:, index]
    distances[far] = _lengths_mm(places - nearest, spacing_mm)
    return distances


def _look_around(
    pieces: np.ndarray, others: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to pieces of the other surface in cells nearby, the nearest first.

    Returns float64 [n], and which of the pieces have none so near.
    """
    distances, far = np.zeros(pieces.size), np.arange(pieces.size)
    _, height, width = others.shape
    flat = others.ravel()
    for offset, length_mm in _offsets(tuple(spacing_mm.tolist())):
        step = int(np.dot(offset, (height * width, width, 1)))
        found = flat[pieces[far] + step]
        distances[far[found]] = length_mm
        far = far[~found]
        if far.size < FEW_PIECES and length_mm:
            break
    return distances, far


@lru_cache(maxsize=64)
def _offsets(spacing_mm: tuple[float, ...]) -> list[tuple[np.ndarray, float]]:
    """Steps to the cells around one, and their lengths, ascending.

    At most `NEAR_CELLS` along each axis, and no longer than the shortest step left out.
    """
    side = range(-NEAR_CELLS, NEAR_CELLS + 1)
    steps = np.array(list(product(side, repeat=3)))
    lengths = _lengths_mm(steps.T, np.array(spacing_mm))
    order = np.argsort(lengths, kind="stable")
    left_out = (NEAR_CELLS + 1) * min(spacing_mm)
    return [(steps[i], float(lengths[i])) for i in order if lengths[i] <= left_out]


def _lengths_mm(steps: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Lengths of steps [3, n] in cells: float64 [n]."""
    return np.sqrt(((steps * spacing_mm[:, None]) ** 2).sum(0))


def _percentile(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """The distance that `percent` of the area does not exceed; distances ascend."""
    share = np.cumsum(areas) / areas.sum()
    index = np.searchsorted(share, percent / 100)
    return float(distances[min(index, distances.size - 1)])
