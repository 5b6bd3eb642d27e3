"""Two masks of one organ and the spacing go in; distances of their surfaces in mm out.

Distances are those of google-deepmind/surface-distance: surfaces run between voxels,
each piece weighs as much as its area (surfels.py), and a piece's distance is that to
the nearest piece of the other surface. `surface_distance_mm`, the "S2S" of the
paper's tables here, is the mean of the two one-way area-weighted means. Surfaces of
masks are staircases and the nearest stair is what counts: such distances fall short
of those between smooth surfaces, by half a voxel where these are far apart.

A mask and its spacing go in; the corners its surface passes, and the areas, out.

The surface of a mask runs between its voxels. Around each point where eight voxels
meet lies a cell with those voxels' centres as corners; the 8 bits "inside or not"
are the cell's code. A cell whose bits differ holds a piece of surface (a surfel):
the polygons through the middles of the cell's edges that have one end inside. The
area of those polygons, at the real spacing, is what a surfel weighs.

Two masks of one organ and the spacing in, the published code's distance out.

The authors' evaluation (utils/metrics.py) calls this the surface distance: axial slice
by axial slice, the mean distance between the outer contours' pixels, averaged over the
slices in which both masks have the organ. Slices that were missed altogether do not
count, so it flatters; surface.py measures in 3-D.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import check_masks


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


CORNERS = tuple(product((0, 1), repeat=3))  # bit k of a code is corner k


def surface(mask: np.ndarray, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """Where the surface of `mask` lies, and how large each piece is.

    Beyond the array's border is background: an organ that is cut off there has a
    surface on the cut.

    Args:
      mask: bool [D, H, W].
      spacing_mm: 3 positive lengths, in the order of the axes.

    Returns:
      bool [D + 1, H + 1, W + 1], the cells with a piece of surface (cell d, h, w lies
      before voxel d, h, w), and the areas of those cells in mm2, float64 [n], in the
      order in which indexing with the first finds them.
    """
    code = cell_codes(mask)
    borders = (code != 0) & (code != 255)
    spacing = tuple(float(s) for s in spacing_mm)
    return borders, areas_mm2(spacing)[code[borders]]


def cell_codes(mask: np.ndarray) -> np.ndarray:
    """The codes of all cells of bool [D, H, W]: uint8 [D + 1, H + 1, W + 1]."""
    voxels = np.pad(mask, 1).view(np.uint8)
    code = np.zeros([n + 1 for n in mask.shape], np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = [slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True)]
        code |= voxels[tuple(window)] << np.uint8(bit)
    return code


@lru_cache(maxsize=64)
def areas_mm2(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area of the surface in a cell of each code: float64 [256], read-only."""
    areas = np.zeros(256)
    for code in range(256):
        for polygon in polygons(code):
            areas[code] += _area(np.array(polygon) * spacing_mm)
    areas.flags.writeable = False
    return areas


def polygons(code: int) -> list[list[tuple[float, float, float]]]:
    """The closed polygons that part inside from outside in a cell of this code.

    On each face of the cell, every run of inside corners is cut off by a straight
    line between the middles of the two edges where the run begins and ends; inside
    corners that only touch across a face's diagonal are parted. Faces are walked as
    seen from outside, so each such line has a direction, each edge is the beginning
    of one line and the end of another, and the lines close to polygons.
    """
    following = {}
    for face in _faces():
        inside = [bool(code >> CORNERS.index(corner) & 1) for corner in face]
        starts = [i for i in range(4) if inside[i] and not inside[i - 1]]
        for start in starts:
            end = start
            while inside[(end + 1) % 4]:
                end = (end + 1) % 4
            begin = _middle(face[start - 1], face[start])
            following[begin] = _middle(face[end], face[(end + 1) % 4])
    found = []
    while following:
        point, after = following.popitem()
        polygon = [point]
        while after != point:
            polygon.append(after)
            after = following.pop(after)
        found.append(polygon)
    return found


def _faces() -> list[list[tuple[int, int, int]]]:
    """The six faces, each its four corners in turn as seen from outside."""
    faces = []
    for axis, side in product(range(3), (0, 1)):
        ring = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        # side, b, c stand on the axes axis, axis + 1, axis + 2.
        corners = [np.roll((side, b, c), axis) for b, c in ring]
        faces.append([tuple(int(x) for x in corner) for corner in corners])
    return faces


def _middle(a: tuple[int, int, int], b: tuple[int, int, int]):
    return tuple((x + y) / 2 for x, y in zip(a, b, strict=True))


def _area(polygon: np.ndarray) -> float:
    """Area of a polygon [n, 3], bent ones as triangles around their centre."""
    spokes = polygon - polygon.mean(axis=0)
    normals = np.cross(spokes, np.roll(spokes, -1, axis=0))
    return float(np.linalg.norm(normals, axis=1).sum() / 2)


def contour_distance_mm(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm
) -> float | None:
    """Mean over slices of the mean of both one-way mean contour distances.

    Args:
      truth, prediction: bool [D, H, W], D the axial slices.
      spacing_mm: 3 lengths [D, H, W].

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
    for a, b in zip(truth[both], prediction[both], strict=True):
        contours = [outer_contour(mask) for mask in (a, b)]
        to_b, to_a = (
            np.asarray(ndimage.distance_transform_edt(~there, sampling=plane_mm))[here]
            for here, there in (contours, contours[::-1])
        )
        distances.append((to_b.mean() + to_a.mean()) / 2)
    return float(np.mean(distances)) if distances else None


def outer_contour(mask: np.ndarray) -> np.ndarray:
    """Pixels of a 2-D mask on its outer border, holes filled: bool [H, W].

    OpenCV's RETR_EXTERNAL contours without approximation: a pixel belongs if one of
    its four neighbours is outside.
    """
    filled = np.asarray(ndimage.binary_fill_holes(mask), bool)
    # Eroded by a cross; beyond the border is outside.
    return filled & ~np.asarray(ndimage.binary_erosion(filled), bool)
