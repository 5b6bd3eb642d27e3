"""A volume at another spacing, or smoothed: `Volume` in, `Volume` out.

Results of any spacing in, arrays on a scan's own grid out, both canonical.

Arrays read between their voxels, one axis at a time: positions in, array out.

A position is a fractional index; beyond the ends the edge is repeated. Linear results
equal `scipy.ndimage.map_coordinates(order=1, mode="nearest")` on the same points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.geometry import canonical_grid
from attunet_jax.volume.volume import MOST_VOXELS, Grid, Volume

Order = Literal["linear", "nearest"]

# Positions are rounded to these digits of a voxel: less is the noise of affines, which
# must not turn a voxel into a mixture of two, nor choose between two labels at equal
# distance (a header's float32 is worth some 1e-5 of a voxel across a scan).
_DIGITS = {"linear": 6, "nearest": 3}

# Rows are interpolated in pieces of about this many voxels: they stay in the cache, and
# the temporaries stay small beside the result.
_PIECE_VOX = 2**18


def interpolate(
    values: np.ndarray, positions: Sequence[np.ndarray], *, order: Order
) -> np.ndarray:
    """`values [D, H, W]` at the grid that `positions` (three vectors) span.

    "nearest" keeps the type and makes up no value. "linear" is float32 maths, and
    integers come back rounded in their own type. Positions that are the array's own
    indices copy nothing: the result can be `values` itself.
    """
    axes = sorted(range(3), key=lambda a: len(positions[a]) / values.shape[a])
    result = values
    # The coarsest reduction first: the passes after it have less to do and to hold.
    for axis in axes:
        position = np.round(positions[axis], _DIGITS[order])
        position = np.clip(position, 0, values.shape[axis] - 1)
        if order == "nearest":
            result = _pick(result, np.floor(position + 0.5).astype(np.intp), axis)
        else:
            result = _between(result, position, axis)
    if order == "linear" and result.dtype != values.dtype:
        if np.issubdtype(values.dtype, np.integer):
            return np.rint(result, out=result).astype(values.dtype)
        return result.astype(np.float32, copy=False)
    return result


def _between(values: np.ndarray, position: np.ndarray, axis: int) -> np.ndarray:
    low = np.floor(position).astype(np.intp)
    weight = (position - low).astype(np.float32)
    if not weight.any():
        return _pick(values, low, axis)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    shape = list(values.shape)
    shape[axis] = len(position)
    result = np.empty(shape, np.float32)
    for piece in _pieces(shape, along=1 if axis == 0 else 0):
        part = values[piece]
        below = part.take(low, axis).astype(np.float32, copy=False)
        above = part.take(high, axis).astype(np.float32, copy=False)
        above -= below
        above *= weight
        np.add(below, above, out=result[piece])
    return result


def _pick(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    if np.array_equal(index, np.arange(values.shape[axis])):
        return values
    return values.take(index, axis)


def _pieces(shape: Sequence[int], *, along: int) -> Iterator[tuple[slice, ...]]:
    rows = max(1, _PIECE_VOX * shape[along] // int(np.prod(shape)))
    for start in range(0, shape[along], rows):
        piece = slice(start, start + rows)
        yield (piece,) if along == 0 else (slice(None), piece)


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


def resample(
    volume: Volume, spacing_mm: Sequence[float] | np.ndarray, *, order: Order
) -> Volume:
    """`volume` at exactly `spacing_mm` (D, H, W), its centre kept in the world.

    The new shape is max(1, round(shape * spacing / new spacing)); what the new grid
    reaches beyond the old one repeats the edge. "linear" for images (int16 stays
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
    """The shape `resample` gives. Raises `BadData` if it would be absurdly large."""
    ratio = np.asarray(spacing_mm, float) / volume.spacing_mm
    # Three digits: an image and its label whose headers differ in the last bit must
    # not come out one slice apart.
    exact = np.round(np.array(volume.voxels.shape) / ratio, 3).tolist()
    new_shape = [max(1, round(n)) for n in exact]
    if np.prod(new_shape, dtype=float) > MOST_VOXELS:
        raise BadData(
            f"{volume.path}: at {_by(spacing_mm)} mm it would have {_by(new_shape)} "
            f"voxels; is its spacing of {_by(volume.spacing_mm)} mm right?"
        )
    return new_shape


def blur(volume: Volume, sigma_mm: float) -> Volume:
    """`volume` smoothed by a Gaussian of `sigma_mm` in the world, float32."""
    # Late: it takes a good part of a program's start, and few runs blur.
    from scipy import ndimage

    voxels = ndimage.gaussian_filter(
        volume.voxels,
        sigma_mm / volume.spacing_mm,
        output=np.float32,
        mode="nearest",
    )
    return replace(volume, voxels=voxels)


def _by(numbers: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
