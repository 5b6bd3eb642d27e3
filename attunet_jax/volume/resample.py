"""Resamples volumes to another spacing, and results back onto a scan's own grid.

Arrays are interpolated one axis at a time at fractional indices; beyond the ends the
edge is repeated. Linear results equal `scipy.ndimage.map_coordinates(order=1,
mode="nearest")` at the same points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.geometry import canonical_grid
from attunet_jax.volume.volume import MAX_VOXELS, Grid, Volume, sizes_text

Order = Literal["linear", "nearest"]

# Positions are rounded to these digits of a voxel. Finer digits are rounding noise of
# affines (a header's float32 gives some 1e-5 of a voxel across a scan), which must not
# mix two voxels, nor decide between two labels at equal distance.
_DIGITS = {"linear": 6, "nearest": 3}

# Interpolation proceeds in blocks of about this many voxels, which fit in the cache and
# keep temporaries small.
_BLOCK_VOX = 2**18


def resample(
    volume: Volume, spacing_mm: Sequence[float] | np.ndarray, *, order: Order
) -> Volume:
    """Resamples `volume` to exactly `spacing_mm` (D, H, W) about its centre.

    The new shape is max(1, round(shape * spacing / new spacing)); beyond the old grid
    the edge is repeated. "linear" for images (int16 stays
    int16, rounded), "nearest" for labels. Raises `BadData` if the result would be
    absurdly large.
    """
    old_shape = np.array(volume.voxels.shape)
    ratio = np.asarray(spacing_mm, float) / volume.spacing_mm
    new_shape = resampled_shape(volume, spacing_mm)
    first = (old_shape - 1) / 2 - (np.array(new_shape) - 1) / 2 * ratio
    index_map = np.diag([*ratio, 1.0])
    index_map[:3, 3] = first
    positions = [
        f + np.arange(n) * r for f, n, r in zip(first, new_shape, ratio, strict=True)
    ]
    return replace(
        volume,
        voxels=interpolate(volume.voxels, positions, order=order),
        affine=volume.affine @ index_map,
    )


def resampled_shape(
    volume: Volume, spacing_mm: Sequence[float] | np.ndarray
) -> list[int]:
    """Returns the shape that `resample` gives. Raises `BadData` as it does."""
    ratio = np.asarray(spacing_mm, float) / volume.spacing_mm
    # Three digits, so that an image and its label map get equal shapes where their
    # headers differ in the last bit.
    exact = np.round(np.array(volume.voxels.shape) / ratio, 3).tolist()
    new_shape = [max(1, round(n)) for n in exact]
    if np.prod(new_shape, dtype=float) > MAX_VOXELS:
        raise BadData(
            f"{volume.path}: at {sizes_text(spacing_mm)} mm it would have "
            f"{sizes_text(new_shape)} voxels; is its spacing of "
            f"{sizes_text(volume.spacing_mm)} mm right?"
        )
    return new_shape


def blur(volume: Volume, sigma_mm: float) -> Volume:
    """Smooths `volume` by a Gaussian of `sigma_mm`, float32."""
    # Imported late: it takes a good part of a program's start, and few runs blur.
    from scipy import ndimage

    voxels = ndimage.gaussian_filter(
        volume.voxels,
        sigma_mm / volume.spacing_mm,
        output=np.float32,
        mode="nearest",
    )
    return replace(volume, voxels=voxels)


def onto_grid(
    values: np.ndarray, affine: np.ndarray, grid: Grid, *, order: Order
) -> np.ndarray:
    """Resamples `values [D, H, W]` or `[K, D, H, W]` onto the canonical view of `grid`.

    `affine` takes an index of `values` (canonical) to world mm. An array that lies on
    the grid already is returned unchanged, bit for bit. Raises `ValueError` if one grid
    is rotated against the other.
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
    probabilities_kdhw: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    *,
    slab_vox: int = 2**22,
) -> np.ndarray:
    """Returns the most probable class of each voxel of `grid`, uint8 `[D, H, W]`.

    `probabilities_kdhw [K, D, H, W]` is float on a grid with `affine`. Every class is
    resampled linearly, in slabs of about `slab_vox` voxels along D, so that
    probabilities are never held at full resolution. The lower class wins a tie.
    """
    if len(probabilities_kdhw) > 256:
        raise ValueError(f"{len(probabilities_kdhw)} classes do not fit in uint8")
    depth, height, width = _positions(affine, grid)
    labels = np.zeros((len(depth), len(height), len(width)), np.uint8)
    slices = max(1, slab_vox // (len(height) * len(width)))
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
    """Returns for each axis where the voxels of `grid` lie in the array of `affine`."""
    shape, target = canonical_grid(grid)
    index_map = np.linalg.solve(affine, target)
    scale = np.diag(index_map)[:3]
    rotation = index_map[:3, :3] - np.diag(scale)
    if np.abs(rotation * shape).max() > 0.01:
        raise ValueError("the two grids are rotated against each other")
    return [
        index_map[axis, 3] + scale[axis] * np.arange(shape[axis]) for axis in range(3)
    ]


def interpolate(
    values: np.ndarray, positions: Sequence[np.ndarray], *, order: Order
) -> np.ndarray:
    """Interpolates `values [D, H, W]` at the grid of `positions`, a vector an axis.

    "nearest" keeps the type and invents no value. "linear" computes in float32 and
    returns integers rounded, in their own type. Where the positions are the array's own
    indices nothing is copied: the result can be `values` itself.
    """
    axes = sorted(range(3), key=lambda a: len(positions[a]) / values.shape[a])
    result = values
    # The largest reduction first, so that the passes after it have less to do and hold.
    for axis in axes:
        position = np.round(positions[axis], _DIGITS[order])
        position = np.clip(position, 0, values.shape[axis] - 1)
        if order == "nearest":
            result = _take(result, np.floor(position + 0.5).astype(np.intp), axis)
        else:
            result = _linear(result, position, axis)
    if order == "linear" and result.dtype != values.dtype:
        if np.issubdtype(values.dtype, np.integer):
            return np.rint(result, out=result).astype(values.dtype)
        return result.astype(np.float32, copy=False)
    return result


def _linear(values: np.ndarray, position: np.ndarray, axis: int) -> np.ndarray:
    low = np.floor(position).astype(np.intp)
    weight = (position - low).astype(np.float32)
    if not weight.any():
        return _take(values, low, axis)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    shape = list(values.shape)
    shape[axis] = len(position)
    result = np.empty(shape, np.float32)
    for block in _blocks(shape, along=1 if axis == 0 else 0):
        below = values[block].take(low, axis).astype(np.float32, copy=False)
        above = values[block].take(high, axis).astype(np.float32, copy=False)
        above -= below
        above *= weight
        np.add(below, above, out=result[block])
    return result


def _take(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    if np.array_equal(index, np.arange(values.shape[axis])):
        return values
    return values.take(index, axis)


def _blocks(shape: Sequence[int], *, along: int) -> Iterator[tuple[slice, ...]]:
    rows = max(1, _BLOCK_VOX * shape[along] // int(np.prod(shape)))
    for start in range(0, shape[along], rows):
        block = slice(start, start + rows)
        yield (block,) if along == 0 else (slice(None), block)
