"""Trilinear upsampling, with or without a concatenation, and 2x2x2 max pooling.

Everything here except `align_corners=True` is local, so on a mesh that splits the
depth it costs the exchange of single slices and never gathers a volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attunet_jax.ops.dispatch import concatenate
from attunet_jax.ops.recompute import Deferred


@jax.named_scope("resize")
def upsample(x: jax.Array, factor: int, *, align_corners: bool) -> jax.Array:
    """Trilinear upsampling by a whole factor along depth, height and width.

    x [B, D, H, W, C] -> [B, f D, f H, f W, C]. align_corners=False puts voxel centres
    at half-integers (scans keep their field of view; `jax.image.resize`, "linear");
    True puts the outermost centres of both grids on each other, which moves every
    voxel by an amount that depends on the whole axis: for weights trained that way.
    """
    if factor == 1:
        return x
    if align_corners:
        for axis in (1, 2, 3):
            x = _between_corners(x, axis, factor)
        return x
    # Rounded to x's type after each axis (PyTorch: once): what lies between two axes
    # is written to memory, and float32 would be twice as much.
    for axis in (1, 2, 3):
        x = _by_phases(x, axis, factor)
    return x


@dataclass(frozen=True)
class UpsampleConcat:
    """skip [B, D, H, W, S], coarser [B, D/2, H/2, W/2, C] -> [B, D, H, W, S + C].

    Hashable, so that it can be the function of a `Deferred`.
    """

    align_corners: bool

    @jax.named_scope("resize")
    def __call__(self, skip: jax.Array, coarser: jax.Array) -> jax.Array:
        return concatenate(self.parts(skip, coarser), axis=-1)

    def parts(self, skip: jax.Array, coarser: jax.Array) -> list[jax.Array]:
        """Returns the two arrays that are concatenated."""
        return [skip, upsample(coarser, 2, align_corners=self.align_corners)]


def upsample_concat(
    skip: jax.Array, coarser: jax.Array, *, align_corners: bool
) -> Deferred:
    """Defers: coarser features upsampled to the skip's grid, concatenated behind it."""
    return Deferred(UpsampleConcat(align_corners), (skip, coarser))


@jax.named_scope("max_pool")
def max_pool_2x2x2(x: jax.Array) -> jax.Array:
    """Returns the largest of each disjoint 2x2x2 block.

    [B, D, H, W, C] -> [B, D//2, H//2, W//2, C].
    A last slice, row or column without a partner is left out.
    """
    batch, depth, height, width, channels = x.shape
    d, h, w = depth // 2, height // 2, width // 2
    blocks = x[:, : 2 * d, : 2 * h, : 2 * w].reshape(batch, d, 2, h, 2, w, 2, channels)
    return _largest(blocks)


def interleave(phases: Sequence[jax.Array], axis: int) -> jax.Array:
    """Returns along `axis` the first of each array, then the second of each, ..."""
    shape = list(phases[0].shape)
    shape[axis] *= len(phases)
    each = [jnp.expand_dims(phase, axis + 1) for phase in phases]
    return concatenate(each, axis + 1).reshape(shape)


# Not blocks.max(): its gradient asks which voxels equal the result, and where a fusion
# computes both anew, rounded otherwise, none does: wrong gradients without a warning.
@jax.custom_vjp
def _largest(blocks):
    return _largest_and_place(blocks)[0]


def _largest_and_place(blocks):
    """[B, d, 2, h, 2, w, 2, C] -> [B, d, h, w, C] twice: value, and which of the 8."""
    largest = blocks[:, :, 0, :, 0, :, 0]
    place = jnp.zeros(largest.shape, jnp.int8)
    for i in range(1, 8):
        other = blocks[:, :, i // 4, :, i // 2 % 2, :, i % 2]
        larger = other > largest
        largest = jnp.where(larger, other, largest)
        place = jnp.where(larger, jnp.int8(i), place)
    return largest, place


def _gradient_at_place(place, cotangent):
    each = jnp.arange(8, dtype=jnp.int8).reshape(2, 1, 2, 1, 2, 1)
    place, cotangent = (jnp.expand_dims(a, (2, 4, 6)) for a in (place, cotangent))
    return (jnp.where(place == each, cotangent, jnp.zeros_like(cotangent)),)


_largest.defvjp(_largest_and_place, _gradient_at_place)


def _by_phases(x, axis, factor):
    """Each of the `factor` phases of the result mixes a voxel with one neighbour."""
    position = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    before = jnp.where(position == 0, x, _shifted(x, axis, 1))
    after = jnp.where(position == x.shape[axis] - 1, x, _shifted(x, axis, -1))
    phases = []
    for phase in range(factor):
        t = (phase + 0.5) / factor - 0.5
        phases.append((1 - abs(t)) * x + abs(t) * (before if t < 0 else after))
    return interleave(phases, axis)


def _shifted(x, axis, by):
    """Element i along the axis is element i - by of x, zero outside."""
    edges = [(by, -by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _between_corners(x, axis, factor):
    weights = jnp.asarray(_corner_weights(x.shape[axis], factor), x.dtype)
    return jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)


def _corner_weights(size, factor):
    """[f n, n]: row i interpolates linearly at i (n - 1) / (f n - 1)."""
    at = np.linspace(0, size - 1, factor * size)
    low = np.minimum(np.floor(at).astype(int), max(size - 2, 0))
    weights = np.zeros((factor * size, size))
    rows = np.arange(factor * size)
    weights[rows, low] = 1 - (at - low)
    weights[rows, np.minimum(low + 1, size - 1)] += at - low
    return weights
