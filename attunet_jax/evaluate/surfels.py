"""Pieces of a mask's surface (surfels): which cells hold one, and its area.

The surface of a mask runs between its voxels. Around each point where eight voxels meet
lies a cell with those voxels' centres as corners; the 8 bits "inside or not" are the
cell's code. A cell whose bits differ holds a piece of surface: the polygons through the
middles of the cell's edges that have one end inside. A piece weighs as much as the area
of its polygons at the real spacing. Most are flat; a bent one has no area of its own,
and two definitions give it one:

- "mesh" cuts it into triangles around its centre.
- "surface_distance" is google-deepmind/surface-distance, whose published table of 256
  codes follows from two rules: a code of more than four corners counts as its
  complement, and each polygon is cut between its corners into the triangles that are
  largest together in a cell of sides 1. Its areas are up to a percent larger.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np

CORNERS = tuple(product((0, 1), repeat=3))  # bit k of a code is corner k

# Whose areas weigh the pieces; definitions.py has the line that outputs print.
Definition = Literal["mesh", "surface_distance"]
Point = tuple[float, float, float]


def surface(
    mask: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    definition: Definition = "mesh",
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
    cells = code + np.uint8(1) > 1  # neither 0 nor 255, which becomes 0
    spacing = tuple(float(s) for s in spacing_mm)
    return cells, areas_mm2(spacing, definition)[code[cells]]


def cell_codes(mask: np.ndarray) -> np.ndarray:
    """Returns the codes of all cells of bool [D, H, W]: uint8 [D+1, H+1, W+1]."""
    code = np.pad(mask, 1).view(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):  # corner k is 4 d + 2 h + w
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        code = code[tuple(low)] | code[tuple(high)] << np.uint8(bits)
    return code


@lru_cache(maxsize=64)
def areas_mm2(
    spacing_mm: tuple[float, ...], definition: Definition = "mesh"
) -> np.ndarray:
    """Returns the area of surface in a cell of each code: float64 [256], read-only."""
    codes, normals = _triangles(definition)
    depth, height, width = spacing_mm
    sides = np.array([height * width, depth * width, depth * height])
    triangle_areas = np.linalg.norm(normals * sides, axis=1) / 2
    areas = np.bincount(codes, triangle_areas, minlength=256)
    areas.flags.writeable = False
    return areas


@lru_cache
def _triangles(definition: Definition) -> tuple[np.ndarray, np.ndarray]:
    """The triangles of all codes in a cell of sides 1: their codes, and normals [n, 3].

    A normal is as long as twice the triangle's area.
    """
    codes, triangles = [], []
    for code in range(256):
        if definition == "mesh":
            of_code = [t for p in polygons(code) for t in _around_centre(p)]
        else:
            few = code if code.bit_count() <= 4 else 255 - code
            of_code = [t for p in polygons(few) for t in _largest(p)]
        triangles += of_code
        codes += [code] * len(of_code)
    return np.array(codes), _normals(triangles)


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


Triangle = tuple[Point, Point, Point]


def _normals(triangles: Sequence[Triangle]) -> np.ndarray:
    """Returns [n, 3]; each is as long as twice the triangle's area."""
    a, b, c = np.moveaxis(np.array(triangles), 1, 0)
    return np.cross(b - a, c - a)


def _around_centre(polygon: list[Point]) -> list[Triangle]:
    d, h, w = np.mean(polygon, axis=0)
    following = polygon[1:] + polygon[:1]
    return [((d, h, w), a, b) for a, b in zip(polygon, following, strict=True)]


def _largest(polygon: list[Point]) -> list[Triangle]:
    if len(polygon) == 3:
        return [(polygon[0], polygon[1], polygon[2])]
    choices = list(_triangulations(polygon))
    areas = [np.linalg.norm(_normals(cut), axis=1).sum() for cut in choices]
    return choices[int(np.argmax(areas))]


def _triangulations(polygon: list[Point]) -> Iterator[list[Triangle]]:
    """Yields every way to cut a polygon into triangles between its corners."""
    if len(polygon) < 3:
        yield []
        return
    for middle in range(1, len(polygon) - 1):
        triangle = polygon[0], polygon[middle], polygon[-1]
        for before in _triangulations(polygon[: middle + 1]):
            for after in _triangulations(polygon[middle:]):
                yield [*before, triangle, *after]
