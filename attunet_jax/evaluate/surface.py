"""Distances between the surfaces of two masks of one organ, in mm.

Two measures:

- `surface_distances`, in 3-D, as in google-deepmind/surface-distance. The surface of a
  mask runs between its voxels. Around each point where eight voxels meet lies a cell
  with those voxels' centres as corners; the 8 bits "inside or not" are the cell's code.
  A cell whose bits differ holds a piece of surface (a surfel): the polygons through the
  middles of the cell's edges that have one end inside. A piece weighs as much as the
  area of its polygons at the real spacing, and its distance is that to the nearest
  piece of the other surface. A bent polygon is cut into triangles around its centre, so
  areas are a little smaller than in that library; distances are equal. The mean of the
  two one-way area-weighted means is the "S2S" of the tables. Surfaces of masks are
  staircases, so these distances are shorter than those between smooth surfaces, by up
  to half a voxel.
- `contour_distance_mm`, slice by slice, as in the authors' code (utils/metrics.py): the
  mean distance between the outer contours' pixels in each axial slice, averaged over
  the slices in which both masks have the organ. It ignores slices that were missed
  altogether, so it is too favourable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import check_masks

CORNERS = tuple(product((0, 1), repeat=3))  # bit k of a code is corner k

# Whose areas weigh the pieces of a surface; definitions.py has a line on each.
Definition = Literal["mesh", "surface_distance"]
Point = tuple[float, float, float]


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
    truth_cells, truth_areas = surface(truth[box], spacing)
    prediction_cells, prediction_areas = surface(prediction[box], spacing)
    to_prediction = _distances_mm(truth_cells, prediction_cells, spacing)
    to_truth = _distances_mm(prediction_cells, truth_cells, spacing)
    if known is not None:
        cells = tuple(slice(side.start, side.stop + 1) for side in box)
        beside = cell_codes(~known)[cells] != 0
        kept = ~beside[truth_cells]
        to_prediction, truth_areas = to_prediction[kept], truth_areas[kept]
        kept = ~beside[prediction_cells]
        to_truth, prediction_areas = to_truth[kept], prediction_areas[kept]
    forth, back = np.argsort(to_prediction), np.argsort(to_truth)
    return SurfaceDistances(
        truth_to_prediction_mm=to_prediction[forth],
        truth_areas_mm2=truth_areas[forth],
        prediction_to_truth_mm=to_truth[back],
        prediction_areas_mm2=prediction_areas[back],
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Returns the smallest box around the True voxels; an empty one without any."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        (hits,) = np.nonzero(mask.any(axis=others))
        box.append(slice(hits[0], hits[-1] + 1) if hits.size else slice(0, 0))
    return tuple(box)


def _distances_mm(
    from_cells: np.ndarray, to_cells: np.ndarray, spacing_mm: np.ndarray
) -> np.ndarray:
    """Distance of each True of `from_cells` to the nearest of `to_cells`: float64."""
    # Without a target, distance_transform_edt returns arbitrary numbers.
    if not to_cells.any():
        return np.full(np.count_nonzero(from_cells), np.inf)
    nearest_mm = ndimage.distance_transform_edt(~to_cells, sampling=spacing_mm)
    return np.asarray(nearest_mm)[from_cells]


def _percentile(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """The distance that `percent` of the area does not exceed; distances ascend."""
    share = np.cumsum(areas) / areas.sum()
    index = np.searchsorted(share, percent / 100)
    return float(distances[min(index, distances.size - 1)])


def surface(
    mask: np.ndarray, spacing_mm: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the cells that the surface of `mask` passes, and the area in each.

    Beyond the array's border is background: an organ that is cut off there has a
    surface on the cut.

    Args:
      mask: bool [D, H, W].
      spacing_mm: 3 positive lengths, in the order of the axes.

    Returns:
      bool [D + 1, H + 1, W + 1], True for cells with a piece of surface (cell d, h, w
      lies before voxel d, h, w), and the areas of those cells in mm2, float64 [n], in
      the order of indexing with the first array.
    """
    code = cell_codes(mask)
    cells = (code != 0) & (code != 255)
    spacing = tuple(float(s) for s in spacing_mm)
    return cells, areas_mm2(spacing)[code[cells]]


def cell_codes(mask: np.ndarray) -> np.ndarray:
    """Returns the codes of all cells of bool [D, H, W]: uint8 [D+1, H+1, W+1]."""
    voxels = np.pad(mask, 1).view(np.uint8)
    code = np.zeros([n + 1 for n in mask.shape], np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = [slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True)]
        code |= voxels[tuple(window)] << np.uint8(bit)
    return code


@lru_cache(maxsize=64)
def areas_mm2(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Returns the area of surface in a cell of each code: float64 [256], read-only."""
    areas = np.zeros(256)
    for code in range(256):
        for polygon in polygons(code):
            areas[code] += _area(np.array(polygon) * spacing_mm)
    areas.flags.writeable = False
    return areas


def polygons(code: int) -> list[list[Point]]:
    """Returns the closed polygons between inside and outside in a cell of this code.

    On each face of the cell, every run of inside corners is cut off by a straight
    line between the middles of the two edges where the run begins and ends; inside
    corners that touch only across a face's diagonal are separated. The corners of a
    face are visited in turn as seen from outside, so each such line has a direction,
    each edge is the start of one line and the end of another, and the lines close to
    polygons.
    """
    next_point: dict[Point, Point] = {}
    for face in _faces():
        inside = [bool(code >> CORNERS.index(corner) & 1) for corner in face]
        starts = [i for i in range(4) if inside[i] and not inside[i - 1]]
        for start in starts:
            end = start
            while inside[(end + 1) % 4]:
                end = (end + 1) % 4
            line_start = _middle(face[start - 1], face[start])
            next_point[line_start] = _middle(face[end], face[(end + 1) % 4])
    found = []
    while next_point:
        first, point = next_point.popitem()
        polygon = [first]
        while point != first:
            polygon.append(point)
            point = next_point.pop(point)
        found.append(polygon)
    return found


def _faces() -> list[list[tuple[int, int, int]]]:
    """The six faces, each its four corners in turn as seen from outside."""
    faces = []
    for axis, side in product(range(3), (0, 1)):
        ring = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        # side, b, c lie on the axes axis, axis + 1, axis + 2.
        corners = [np.roll((side, b, c), axis) for b, c in ring]
        faces.append([tuple(int(x) for x in corner) for corner in corners])
    return faces


def _middle(a: tuple[int, int, int], b: tuple[int, int, int]) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2


def _area(polygon: np.ndarray) -> float:
    """Area of a polygon [n, 3]; a bent one is cut into triangles around its centre."""
    spokes = polygon - polygon.mean(axis=0)
    normals = np.cross(spokes, np.roll(spokes, -1, axis=0))
    return float(np.linalg.norm(normals, axis=1).sum() / 2)


def contour_distance_mm(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    known: np.ndarray | None = None,
) -> float | None:
    """Returns the published code's distance: the mean over slices of the contours'.

    In each slice it is the mean of both one-way mean distances.

    Args:
      truth, prediction: bool [D, H, W], D the axial slices.
      spacing_mm: 3 lengths [D, H, W].
      known: as in `surface_distances`.

    Returns:
      None where no slice has the organ in both. A pixel that a contour passes twice
      (where the organ is one pixel thin) counts once, in the authors' code twice.

    Raises:
      ValueError: the masks are not boolean or differ in shape.
    """
    check_masks(truth, prediction)
    plane_mm = np.asarray(spacing_mm, float)[1:]
    both = truth.any((1, 2)) & prediction.any((1, 2))
    distances = []
    for d in np.flatnonzero(both):
        of_a, of_b = outer_contour(truth[d]), outer_contour(prediction[d])
        forth = _distances_mm(of_a, of_b, plane_mm)
        back = _distances_mm(of_b, of_a, plane_mm)
        if known is not None:
            beside = np.asarray(ndimage.binary_dilation(~known[d]), bool)
            forth, back = forth[~beside[of_a]], back[~beside[of_b]]
        if forth.size and back.size:
            distances.append((forth.mean() + back.mean()) / 2)
    return float(np.mean(distances)) if distances else None


def outer_contour(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels on the outer border of a 2-D mask, holes filled: bool [H, W].

    Equals OpenCV's RETR_EXTERNAL contours without approximation: a pixel belongs if one
    of its four neighbours is outside. Pixels beyond the border are outside.
    """
    filled = np.asarray(ndimage.binary_fill_holes(mask), bool)
    return filled & ~np.asarray(ndimage.binary_erosion(filled), bool)
