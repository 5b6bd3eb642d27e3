"""A mask and its spacing go in; the corners its surface passes, and the areas, out.

The surface of a mask runs between its voxels. Around each point where eight voxels
meet lies a cell with those voxels' centres as corners; the 8 bits "inside or not"
are the cell's code. A cell whose bits differ holds a piece of surface (a surfel):
the polygons through the middles of the cell's edges that have one end inside. The
area of those polygons, at the real spacing, is what a surfel weighs.
"""

from functools import lru_cache
from itertools import product

import numpy as np

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
