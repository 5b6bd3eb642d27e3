"""Two `Volume`s in; in words how their grids differ, or None, out."""

from itertools import product

import numpy as np

from attunet_jax.volume.orientation import canonical_grid
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
