"""Random in-plane affine maps, the same for all axial slices of a case.

An output pixel p (row, column, relative to the centre of the scan) is read at

    q = R (zoom * p + shift)

with R a rotation, independent zooms of rows and columns, and a shift as a fraction of
the scan's size: the published transform (torchsample `affine_transforms.py`, order
R T Z). Beyond the scan its edge is repeated. The depth axis is untouched, so a volume
that is split over devices along depth needs no communication.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Affine(NamedTuple):
    """One map for each of B cases."""

    angle: jax.Array  # [B] radians
    zoom: jax.Array  # [B, 2] rows, columns; above 1 shows more of the scan
    shift: jax.Array  # [B, 2] fraction of the size
    flip: jax.Array  # [B, 2] bool: rows, columns


def draw(
    key: jax.Array,
    count: int,
    *,
    rotation_degrees: float,
    shift_fraction: float,
    zoom_range: tuple[float, float],
    flip_probability: float,
) -> Affine:
    """Draws `count` maps, uniformly within the ranges."""
    angle_key, zoom_key, shift_key, flip_key = jax.random.split(key, 4)
    limit = jnp.deg2rad(rotation_degrees)
    return Affine(
        angle=jax.random.uniform(angle_key, (count,), minval=-limit, maxval=limit),
        zoom=jax.random.uniform(
            zoom_key, (count, 2), minval=zoom_range[0], maxval=zoom_range[1]
        ),
        shift=jax.random.uniform(
            shift_key, (count, 2), minval=-shift_fraction, maxval=shift_fraction
        ),
        flip=jax.random.bernoulli(flip_key, flip_probability, (count, 2)),
    )


def identity(count: int) -> Affine:
    """Returns `count` identity maps."""
    return Affine(
        angle=jnp.zeros((count,)),
        zoom=jnp.ones((count, 2)),
        shift=jnp.zeros((count, 2)),
        flip=jnp.zeros((count, 2), bool),
    )


def read_positions(
    affine: Affine,
    start: jax.Array,
    size: jax.Array,
    out: Sequence[int],
    offset: jax.Array,
) -> jax.Array:
    """Returns where to read each output pixel, `[B, h, w, 2]` in input voxels.

    The scan begins at `start [B, 2]` of the input plane and has `size [B, 2]` voxels.
    `out` is the output's (h, w) and `offset [B, 2]` the position of its first pixel in
    the input plane.
    """
    first, size = (x.astype(jnp.float32)[:, None, None] for x in (start, size))
    last = first + size - 1
    centre = (first + last) / 2
    rows, columns = jnp.meshgrid(jnp.arange(out[0]), jnp.arange(out[1]), indexing="ij")
    pixel = jnp.stack([rows, columns], -1)[None] + offset[:, None, None, :]
    p = (pixel - centre) * affine.zoom[:, None, None, :]
    p = p + affine.shift[:, None, None, :] * size
    cos, sin = (f(affine.angle)[:, None, None] for f in (jnp.cos, jnp.sin))
    q = jnp.stack(
        [cos * p[..., 0] - sin * p[..., 1], sin * p[..., 0] + cos * p[..., 1]], -1
    )
    # To flip first and warp after means to read at the mirrored position.
    q = jnp.where(affine.flip[:, None, None, :], -q, q) + centre
    return jnp.clip(q, first, last)


def warp_linear(volume: jax.Array, positions: jax.Array) -> jax.Array:
    """Reads `volume [B, D, H, W]` bilinearly: float32 `[B, D, h, w]`."""
    height, width = volume.shape[2:]
    low = jnp.floor(positions).astype(jnp.int32)
    fraction = positions - low
    row, column = low[..., 0], low[..., 1]
    next_row = jnp.minimum(row + 1, height - 1)
    next_column = jnp.minimum(column + 1, width - 1)
    y, x = fraction[..., 0][:, None], fraction[..., 1][:, None]

    def at(r: jax.Array, c: jax.Array) -> jax.Array:
        return _read(volume, r * width + c).astype(jnp.float32)

    top = at(row, column) * (1 - x) + at(row, next_column) * x
    bottom = at(next_row, column) * (1 - x) + at(next_row, next_column) * x
    return top * (1 - y) + bottom * y


def warp_nearest(volume: jax.Array, positions: jax.Array) -> jax.Array:
    """Reads `volume [B, D, H, W]` at the nearest voxels: same type, `[B, D, h, w]`."""
    nearest = jnp.round(positions).astype(jnp.int32)
    return _read(volume, nearest[..., 0] * volume.shape[3] + nearest[..., 1])


def _read(volume: jax.Array, index: jax.Array) -> jax.Array:
    """Reads each case's planes `[D, H * W]` at its own flat `index [h, w]`."""
    flat = volume.reshape(*volume.shape[:2], -1)
    return jax.vmap(lambda planes, i: jnp.take(planes, i, axis=1))(flat, index)
