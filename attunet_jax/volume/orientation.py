"""File axis order to canonical [D, H, W] and back: exact, by transposing and flipping.

Axes that lie oblique to the body go to the closest canonical axis; what is left of
the rotation stays in the affine.
"""

from itertools import permutations

import numpy as np

from attunet_jax.volume.volume import Grid

# World directions (RAS+) in which canonical D, H and W grow: up, back, patient's left.
# Left is -x and back is -y in RAS+.
_TOWARDS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], dtype=float)
_CODES = ("SI", "PA", "LR")  # of an axis that runs as D, H or W does, or against it


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A view of `array` (file order) as `[D, H, W]`, and the affine of that view.

    `affine` (4, 4) takes a file index to world mm, RAS+; so does the returned one for
    canonical indices.
    """
    order, flipped = _closest_axes(affine)
    view = np.flip(array.transpose(order), _where(flipped))
    return view, affine @ _index_map(order, flipped, view.shape)


def from_canonical(array_dhw: np.ndarray, grid: Grid) -> np.ndarray:
    """A view of `array_dhw` in the axis order of the file `grid` describes.

    The exact inverse of `canonical`. Raises `ValueError` if the array is not on `grid`.
    """
    order, flipped = _closest_axes(grid.affine)
    expected = tuple(grid.shape[axis] for axis in order)
    if array_dhw.shape != expected:
        raise ValueError(
            f"array is {array_dhw.shape}, its grid is {expected} [D, H, W]"
        )
    return np.flip(array_dhw, _where(flipped)).transpose(np.argsort(order))


def canonical_grid(grid: Grid) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape `[D, H, W]` and affine of the canonical view of `grid`."""
    order, flipped = _closest_axes(grid.affine)
    d, h, w = (grid.shape[axis] for axis in order)
    return (d, h, w), grid.affine @ _index_map(order, flipped, (d, h, w))


def axis_codes(grid: Grid) -> str:
    """Where each file axis of `grid` leads, as in "RAS": R right, L left, A front,
    P back, S head, I feet; oblique axes by the closest."""
    order, flipped = _closest_axes(grid.affine)
    codes = [""] * 3
    for canonical_axis, file_axis in enumerate(order):
        codes[file_axis] = _CODES[canonical_axis][int(flipped[canonical_axis])]
    return "".join(codes)


def _closest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """File axis for each of D, H, W, and whether it runs the other way.

    Of the six ways to name the axes, the one whose directions agree best: unlike
    choosing axis by axis it cannot take the same file axis twice.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    agreement = _TOWARDS @ directions  # [canonical axis, file axis] cosines
    rows = np.arange(3)
    order = max(permutations(range(3)), key=lambda o: np.abs(agreement[rows, o]).sum())
    return order, agreement[rows, order] < 0


def _where(flipped: np.ndarray) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.flatnonzero(flipped))


def _index_map(
    order: tuple[int, ...], flipped: np.ndarray, shape_dhw: tuple[int, ...]
) -> np.ndarray:
    """(4, 4): canonical index to file index."""
    index_map = np.zeros((4, 4))
    index_map[3, 3] = 1
    for axis, (source, flip) in enumerate(zip(order, flipped, strict=True)):
        index_map[source, axis] = -1 if flip else 1
        index_map[source, 3] = shape_dhw[axis] - 1 if flip else 0
    return index_map
