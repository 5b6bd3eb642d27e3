"""Arrays in a file's axis order in, canonical `[D, H, W]` arrays out, and exactly back."""

from dataclasses import dataclass

import numpy as np

# World directions (RAS+: x to the patient's left is negative) of canonical D, H, W:
# D runs to the head (+z), H to the back (-y), W to the patient's left (-x).
_WORLD_AXIS = (2, 1, 0)
_WORLD_SIGN = (1, -1, -1)


@dataclass(frozen=True)
class Grid:
    """A scan's own grid, as its file stores it.

    `affine (4, 4)` takes a file index (i, j, k, 1) to RAS+ world coordinates in mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Volume:
    """Voxels on a canonical grid, and the grid of the file they came from.

    `voxels [D, H, W]`; `affine (4, 4)` takes (d, h, w, 1) to RAS+ world mm.
    """

    voxels: np.ndarray
    affine: np.ndarray
    grid: Grid
    path: str

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance of neighbouring voxels along D, H, W."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def axis_order(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For D, H, W: which file axis it is, and whether that one runs backwards.

    An oblique scan keeps its obliqueness; each file axis goes to the world axis it is
    closest to, best fit first, so that no two share one.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    fit = np.abs(directions)
    file_axis = [0, 0, 0]
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(fit), fit.shape)
        file_axis[int(world)] = int(axis)
        fit[world, :] = -1
        fit[:, axis] = -1
    order = tuple(file_axis[world] for world in _WORLD_AXIS)
    flips = tuple(
        bool(directions[world, file_axis[world]] * sign < 0)
        for world, sign in zip(_WORLD_AXIS, _WORLD_SIGN, strict=True)
    )
    return order, flips


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A file's array and affine to `[D, H, W]` and its affine; no voxel is changed."""
    order, flips = axis_order(affine)
    moved = np.flip(array.transpose(order), [a for a in range(3) if flips[a]])
    return moved, canonical_affine(Grid(array.shape, affine))  # pyright: ignore


def canonical_affine(grid: Grid) -> np.ndarray:
    """The affine of the canonical view of `grid`."""
    order, flips = axis_order(grid.affine)
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1
    for axis, (file_axis, flip) in enumerate(zip(order, flips, strict=True)):
        to_file[file_axis, axis] = -1 if flip else 1
        if flip:
            to_file[file_axis, 3] = grid.shape[file_axis] - 1
    return grid.affine @ to_file


def canonical_shape(grid: Grid) -> tuple[int, int, int]:
    """The shape of the canonical view of `grid`."""
    d, h, w = (grid.shape[axis] for axis in axis_order(grid.affine)[0])
    return d, h, w


def from_canonical(array: np.ndarray, grid: Grid) -> np.ndarray:
    """`[D, H, W]` back to the file's axis order: the exact inverse of `canonical`."""
    order, flips = axis_order(grid.affine)
    unflipped = np.flip(array, [a for a in range(3) if flips[a]])
    return unflipped.transpose(np.argsort(order))


def same_geometry(a: Volume, b: Volume, tolerance_mm: float) -> str | None:
    """None when two volumes share a grid; else, in a phrase, how they differ.

    Grids are the same when all eight corners agree within `tolerance_mm`.
    """
    if a.voxels.shape != b.voxels.shape:
        return f"shape {list(b.voxels.shape)} against {list(a.voxels.shape)} [D, H, W]"
    last = np.array(a.voxels.shape) - 1
    corners = np.array(np.meshgrid(*[[0, n] for n in last])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm((a.affine @ corners - b.affine @ corners)[:3], axis=0)
    if apart.max() <= tolerance_mm:
        return None
    spacing = np.abs(a.spacing_mm - b.spacing_mm)
    if spacing.max() * last.max() > tolerance_mm:
        return (
            f"spacing {np.round(b.spacing_mm, 4).tolist()} against "
            f"{np.round(a.spacing_mm, 4).tolist()} mm"
        )
    return f"corners lie up to {apart.max():.3g} mm apart"
