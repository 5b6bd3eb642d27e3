"""Two `Volume`s in; in words how their grids differ, or None, out.

File axis order to canonical [D, H, W] and back: exact, by transposing and flipping.

Axes that lie oblique to the body go to the closest canonical axis; what is left of
the rotation stays in the affine.
"""

from itertools import permutations, product

import numpy as np

from attunet_jax.volume.volume import Grid, Volume


def same_geometry(a: Volume, b: Volume, tolerance_mm: float) -> str | None:
    """None if voxels with equal index lie within `tolerance_mm`, else what differs.

    Compares the canonical views: files that store one grid in different axis orders
    are equal. The phrase gives the figures of `a` first.
    """
    first, second = a.voxels.shape, b.voxels.shape
    if first != second:
        hint = ""
        if sorted(first) == sorted(second):
            hint = ": the same numbers, so the axes of one are probably mislabelled"
        return f"{_by(first)} against {_by(second)} voxels (D x H x W){hint}"
    apart = apart_mm(a, b)
    if apart is None or apart <= tolerance_mm:
        return None
    return (
        f"corners lie up to {apart:.3g} mm apart (tolerance {tolerance_mm:g} mm)"
        f"{_spacing_hint(a, b)}{_flip_hint(a, b, tolerance_mm)}"
    )


def apart_mm(a: Volume, b: Volume) -> float | None:
    """Largest distance in mm of voxels with equal index; None where shapes differ."""
    if a.voxels.shape != b.voxels.shape:
        return None
    return _apart_mm(a.voxels.shape, a.affine, b.affine)


def _spacing_hint(a: Volume, b: Volume) -> str:
    if np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3, atol=0):
        return ""
    return f"; spacing {_by(a.spacing_mm)} against {_by(b.spacing_mm)} mm"


def _flip_hint(a: Volume, b: Volume, tolerance_mm: float) -> str:
    """Names the mirroring of the second affine that would make the two agree.

    Two slips are common: world axes of the wrong sign (DICOM's LPS written where
    NIfTI means RAS), and a file axis said to run the other way from the same corner.
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
                and _apart_mm(shape, a.affine, view) <= tolerance_mm
            ):
                return f"; they would agree with {what} of one affine flipped"
    return "; no flip of axes would make them agree"


def _apart_mm(shape: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance between equal corners: the map is affine, so of all voxels."""
    corners = np.array([*product(*((0, n - 1) for n in shape))])
    return float(
        np.linalg.norm((a - b)[:3] @ np.c_[corners, np.ones(8)].T, axis=0).max()
    )


def _by(numbers: tuple[int, ...] | np.ndarray) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


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
