"""Axis orders of files, the canonical order [D, H, W], and comparison of geometries.

Changing the order is exact, by transposing and flipping. Axes oblique to the body go
to the closest canonical axis; the rest of the rotation stays in the affine.
"""

from itertools import permutations, product

import numpy as np

from attunet_jax.volume.placement import corner_distance_mm
from attunet_jax.volume.volume import Grid, Volume, sizes_text

# World directions (RAS+) in which canonical D, H and W grow: up, back (-y) and
# left (-x) of the patient.
_DIRECTIONS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], dtype=float)
_CODES = ("SI", "PA", "LR")  # of an axis that runs as D, H or W does, or against it


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a view of `array` (file order) as `[D, H, W]`, and the view's affine.

    `affine` (4, 4) takes a file index to world mm, RAS+; the returned one takes a
    canonical index there.
    """
    order, flipped = _closest_axes(affine)
    view = np.flip(array.transpose(order), _flipped_axes(flipped))
    return view, affine @ _index_map(order, flipped, view.shape)


def from_canonical(array_dhw: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns a view of `array_dhw` in the axis order of the file `grid` describes.

    This is the exact inverse of `canonical`. Raises `ValueError` if the array is not on
    `grid`.
    """
    order, flipped = _closest_axes(grid.affine)
    expected = tuple(grid.shape[axis] for axis in order)
    if array_dhw.shape != expected:
        raise ValueError(
            f"array is {array_dhw.shape}, its grid is {expected} [D, H, W]"
        )
    return np.flip(array_dhw, _flipped_axes(flipped)).transpose(np.argsort(order))


def canonical_grid(grid: Grid) -> tuple[tuple[int, int, int], np.ndarray]:
    """Returns shape `[D, H, W]` and affine of the canonical view of `grid`."""
    order, flipped = _closest_axes(grid.affine)
    d, h, w = (grid.shape[axis] for axis in order)
    return (d, h, w), grid.affine @ _index_map(order, flipped, (d, h, w))


def axis_codes(grid: Grid) -> str:
    """Returns the direction of each file axis of `grid`, as in "RAS".

    R is right, L left, A front, P back, S head, I feet; oblique axes count as the
    closest.
    """
    order, flipped = _closest_axes(grid.affine)
    codes = [""] * 3
    for canonical_axis, file_axis in enumerate(order):
        codes[file_axis] = _CODES[canonical_axis][int(flipped[canonical_axis])]
    return "".join(codes)


def _closest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the file axis of each of D, H, W, and whether it runs the other way.

    Of the six permutations it takes the one whose directions agree best; a choice axis
    by axis could take the same file axis twice.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    agreement = _DIRECTIONS @ directions  # [canonical axis, file axis] cosines
    rows = np.arange(3)
    order = max(permutations(range(3)), key=lambda o: np.abs(agreement[rows, o]).sum())
    return order, agreement[rows, order] < 0


def _flipped_axes(flipped: np.ndarray) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.flatnonzero(flipped))


def _index_map(
    order: tuple[int, ...], flipped: np.ndarray, shape_dhw: tuple[int, ...]
) -> np.ndarray:
    """Returns the (4, 4) matrix from canonical index to file index."""
    index_map = np.zeros((4, 4))
    index_map[3, 3] = 1
    for axis, (source, flip) in enumerate(zip(order, flipped, strict=True)):
        index_map[source, axis] = -1 if flip else 1
        index_map[source, 3] = shape_dhw[axis] - 1 if flip else 0
    return index_map


def same_geometry(a: Volume, b: Volume, tolerance_mm: float) -> str | None:
    """Returns None if equal indices lie within `tolerance_mm`, else what differs.

    It compares the canonical views: files that store one grid in different axis orders
    are equal. The phrase gives the numbers of `a` first.
    """
    first, second = a.voxels.shape, b.voxels.shape
    if first != second:
        hint = ""
        if sorted(first) == sorted(second):
            hint = ": the same numbers, so the axes of one are probably mislabelled"
        return (
            f"{sizes_text(first)} against {sizes_text(second)} voxels (D x H x W){hint}"
        )
    distance = max_corner_distance_mm(a, b)
    if distance is None or distance <= tolerance_mm:
        return None
    return (
        f"corners lie up to {distance:.3g} mm apart (tolerance {tolerance_mm:g} mm)"
        f"{_spacing_hint(a, b)}{_flip_hint(a, b, tolerance_mm)}"
    )


def max_corner_distance_mm(a: Volume, b: Volume) -> float | None:
    """Returns the largest distance of equal corners; None where shapes differ."""
    if a.voxels.shape != b.voxels.shape:
        return None
    return corner_distance_mm(a.voxels.shape, a.affine, b.affine)


def _spacing_hint(a: Volume, b: Volume) -> str:
    if np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3, atol=0):
        return ""
    return f"; spacing {sizes_text(a.spacing_mm)} against {sizes_text(b.spacing_mm)} mm"


def _flip_hint(a: Volume, b: Volume, tolerance_mm: float) -> str:
    """Names the flip of the second affine that would make the two agree.

    Two mistakes are common: world axes of the wrong sign (DICOM's LPS written where
    NIfTI means RAS), and a file axis that runs the other way from the same corner.
    """
    for choice in list(product((1, -1), repeat=3))[1:]:
        signs = np.array([*choice, 1.0])
        flipped = np.flatnonzero(signs < 0)
        for affine, what in (
            (
                signs[:, None] * b.grid.affine,
                "world " + ", ".join("xyz"[i] for i in flipped),
            ),
            (b.grid.affine * signs, "file axis " + ", ".join(map(str, flipped))),
        ):
            shape, view = canonical_grid(Grid(b.grid.shape, affine))
            if (
                shape == a.voxels.shape
                and corner_distance_mm(shape, a.affine, view) <= tolerance_mm
            ):
                return f"; they would agree with {what} of one affine flipped"
    return "; no flip of axes would make them agree"
