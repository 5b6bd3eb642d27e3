"""Volumes from one spacing to another and back onto the scan's own grid.

Both grids are aligned, so linear interpolation is separable: one axis at a time, the
axis that shrinks most first, which keeps time and memory low. Beyond the border the
edge voxel is repeated.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from attunet_jax.volume.orientation import (
    Grid,
    Volume,
    canonical_affine,
    canonical_shape,
)

# Voxels of float32 that `labels_onto_grid` holds at once, for each class.
_SLAB_VOX = 4_000_000


def resample(volume: Volume, spacing_mm: Sequence[float], *, order: str) -> Volume:
    """To exactly `spacing_mm [D, H, W]`, the volume's centre kept.

    `order` is "linear" for images (integers are rounded back to their type) or
    "nearest" for label maps, which never invents a label.
    """
    new = np.asarray(spacing_mm, float)
    old = volume.spacing_mm
    if np.allclose(new, old, rtol=1e-6, atol=0):
        return volume
    shape = np.array(volume.voxels.shape)
    new_shape = np.maximum(np.rint(shape * old / new), 1).astype(int)
    scale = new / old
    first = (shape - 1) / 2 - scale * (new_shape - 1) / 2  # old index of new voxel 0
    positions = [first[a] + scale[a] * np.arange(new_shape[a]) for a in range(3)]
    step = np.eye(4)
    step[:3, :3] = np.diag(scale)
    step[:3, 3] = first
    return replace(
        volume,
        voxels=_read_at(volume.voxels, positions, order),
        affine=volume.affine @ step,
    )


def blur(volume: Volume, sigma_mm: float) -> Volume:
    """Gaussian blur, the published preprocessing's anti-aliasing before resampling."""
    sigma_vox = sigma_mm / volume.spacing_mm
    smooth = ndimage.gaussian_filter(
        volume.voxels, sigma_vox, output=np.float32, mode="nearest"
    )
    return replace(volume, voxels=_as_type(smooth, volume.voxels.dtype))


def onto_grid(
    values: np.ndarray, affine: np.ndarray, grid: Grid, *, order: str
) -> np.ndarray:
    """Canonical `values [D, H, W]` at `affine` to the canonical view of `grid`.

    The grids must have parallel axes, as a resampled volume and its own grid have;
    without resampling in between the values come back bit for bit.
    """
    return _read_at(values, _positions_on(affine, grid), order)


def labels_onto_grid(
    probabilities: np.ndarray, affine: np.ndarray, grid: Grid
) -> np.ndarray:
    """The most probable class at each voxel of `grid`, `[D, H, W]` uint8.

    `probabilities [K, D, H, W]` are resampled linearly class by class in slabs along
    D, so that never K volumes of the scan's full resolution exist.
    """
    depth, rows, columns = _positions_on(affine, grid)
    labels = np.empty((len(depth), len(rows), len(columns)), np.uint8)
    slab = max(_SLAB_VOX // (len(rows) * len(columns)), 1)
    for start in range(0, len(depth), slab):
        here = depth[start : start + slab]
        best = winner = None
        for k, of_class in enumerate(probabilities):
            p = _read_at(of_class, [here, rows, columns], "linear")
            if best is None or winner is None:
                best, winner = p, np.zeros(p.shape, np.uint8)
                continue
            better = p > best
            winner[better] = k
            np.maximum(best, p, out=best)
        assert winner is not None
        labels[start : start + slab] = winner
    return labels


def _positions_on(affine: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """For each canonical axis of `grid`: where its voxels lie in `affine`'s indices."""
    across = np.linalg.inv(affine) @ canonical_affine(grid)
    return [
        across[a, 3] + across[a, a] * np.arange(n)
        for a, n in enumerate(canonical_shape(grid))
    ]


def _read_at(
    values: np.ndarray, positions: Sequence[np.ndarray], order: str
) -> np.ndarray:
    """`values` at the product of three lists of (fractional) indices."""
    one_axis = {"linear": _linear, "nearest": _nearest}[order]
    wide = values
    shrink = [len(p) / n for p, n in zip(positions, values.shape, strict=True)]
    for axis in np.argsort(shrink, kind="stable"):
        # Positions that are whole numbers but for rounding are voxels, untouched.
        where = np.clip(positions[axis], 0, values.shape[axis] - 1)
        whole = np.rint(where)
        where = np.where(np.abs(where - whole) < 1e-6, whole, where)
        if len(where) == values.shape[axis] and np.array_equal(
            where, np.arange(len(where))
        ):
            continue
        wide = one_axis(wide, where, int(axis))
    return _as_type(wide, values.dtype) if wide is not values else values


def _linear(values: np.ndarray, where: np.ndarray, axis: int) -> np.ndarray:
    low = np.floor(where).astype(int)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(where)
    part = (where - low).astype(np.float32).reshape(shape)
    below = np.take(values, low, axis).astype(np.float32)
    if not part.any():
        return below
    above = np.take(values, high, axis).astype(np.float32)
    above -= below
    above *= part
    above += below
    return above


def _nearest(values: np.ndarray, where: np.ndarray, axis: int) -> np.ndarray:
    return np.take(values, np.floor(where + 0.5).astype(int), axis)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype == dtype or not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    info = np.iinfo(dtype)
    return np.clip(np.rint(values), info.min, info.max).astype(dtype)


