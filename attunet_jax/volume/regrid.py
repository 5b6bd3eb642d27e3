"""Results of any spacing in, arrays on a scan's own grid out, both canonical."""

import numpy as np

from attunet_jax.volume.interpolate import Order, interpolate
from attunet_jax.volume.orientation import canonical_grid
from attunet_jax.volume.volume import Grid

# Label maps are made this many voxels at a time, whatever the number of classes.
_SLAB_VOX = 2**22


def onto_grid(
    values: np.ndarray, affine: np.ndarray, grid: Grid, *, order: Order
) -> np.ndarray:
    """`values [D, H, W]`, or `[K, D, H, W]`, on the canonical view of `grid`.

    `affine` takes an index of `values` (canonical) to world mm. An array that lies on
    the grid already comes back unchanged, bit for bit. Raises `ValueError` if the two
    grids are turned against each other.
    """
    positions = _positions(affine, grid)
    if values.ndim == 3:
        return interpolate(values, positions, order=order)
    shape = [len(position) for position in positions]
    result = np.empty((len(values), *shape), values.dtype)
    for one, target in zip(values, result, strict=True):
        target[...] = interpolate(one, positions, order=order)
    return result


def labels_onto_grid(
    probabilities_kdhw: np.ndarray, affine: np.ndarray, grid: Grid
) -> np.ndarray:
    """The likeliest class on the canonical view of `grid`, uint8 `[D, H, W]`.

    `probabilities_kdhw [K, D, H, W]` float on a grid with `affine`; every class is
    resampled linearly, in slabs along D, so that full-resolution probabilities never
    exist whole. The lower class wins a tie.
    """
    if len(probabilities_kdhw) > 256:
        raise ValueError(f"{len(probabilities_kdhw)} classes do not fit in uint8")
    depth, height, width = _positions(affine, grid)
    labels = np.zeros((len(depth), len(height), len(width)), np.uint8)
    slices = max(1, _SLAB_VOX // (len(height) * len(width)))
    for start in range(0, len(depth), slices):
        slab = slice(start, start + slices)
        positions = (depth[slab], height, width)
        largest = interpolate(probabilities_kdhw[0], positions, order="linear")
        for value, one in enumerate(probabilities_kdhw[1:], start=1):
            candidate = interpolate(one, positions, order="linear")
            labels[slab][candidate > largest] = value
            largest = np.maximum(largest, candidate)
    return labels


def _positions(affine: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """For each axis, where the voxels of `grid` lie on the array with `affine`."""
    shape, target = canonical_grid(grid)
    index_map = np.linalg.solve(affine, target)
    scale = np.diag(index_map)[:3]
    turned = index_map[:3, :3] - np.diag(scale)
    if np.abs(turned * shape).max() > 0.01:
        raise ValueError("the two grids are turned against each other")
    return [
        index_map[axis, 3] + scale[axis] * np.arange(shape[axis]) for axis in range(3)
    ]
