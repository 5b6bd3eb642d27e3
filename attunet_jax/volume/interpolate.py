"""Arrays read between their voxels, one axis at a time: positions in, array out.

A position is a fractional index; beyond the ends the edge is repeated. Linear results
equal `scipy.ndimage.map_coordinates(order=1, mode="nearest")` on the same points.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

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
