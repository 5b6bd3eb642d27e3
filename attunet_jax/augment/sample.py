"""Scan windows in, the network's crops out: pure (global batch, key) -> batch.

In: `image_hu [B, D, H, W]` int16, `label [B, D, H, W]` uint8, and for each case
`mean_hu [B]`, `std_hu [B]` and where in the window the scan lies, `scan_start [B, 3]`
and `scan_size [B, 3]` (its padding up to the crop's shape included). Out:
`image [B, d, h, w, 1]` float32, `label [B, d, h, w]` int32, plus whatever else each
case carried.
"""

import jax
import jax.numpy as jnp

from attunet_jax.augment import affine

Batch = dict[str, jax.Array]


def augmented_crops(
    batch: Batch,
    key: jax.Array,
    *,
    crop_shape: tuple[int, int, int],
    rotation_degrees: float,
    shift_fraction: float,
    zoom_range: tuple[float, float],
    flip_probability: float,
    normalise_over: str,
    label_table: tuple[int, ...],
) -> Batch:
    """A random crop of the randomly warped and flipped window.

    `label_table` names the output node of each label value in the records.
    """
    count = len(batch["image_hu"])
    affine_key, place_key = jax.random.split(key)
    maps = affine.draw(
        affine_key,
        count,
        rotation_degrees=rotation_degrees,
        shift_fraction=shift_fraction,
        zoom_range=zoom_range,
        flip_probability=flip_probability,
    )
    room = batch["scan_size"] - jnp.asarray(crop_shape)
    start = jax.random.randint(place_key, (count, 3), 0, room + 1)
    start = start + batch["scan_start"]
    return _crops(batch, maps, start, crop_shape, normalise_over, label_table)


def centre_crops(
    batch: Batch,
    *,
    crop_shape: tuple[int, int, int],
    normalise_over: str,
    label_table: tuple[int, ...],
) -> Batch:
    """The centre crop as it is, for held-out figures."""
    room = batch["scan_size"] - jnp.asarray(crop_shape)
    start = batch["scan_start"] + room // 2
    maps = affine.identity(len(start))
    return _crops(batch, maps, start, crop_shape, normalise_over, label_table)


def _crops(
    batch: Batch,
    maps: affine.Affine,
    start: jax.Array,
    crop_shape: tuple[int, int, int],
    normalise_over: str,
    label_table: tuple[int, ...],
) -> Batch:
    image_hu, label = batch["image_hu"], batch["label"]
    plane = batch["scan_start"][:, 1:], batch["scan_size"][:, 1:]
    if normalise_over == "window":
        # The published order: statistics of the whole warped scan, then the crop.
        everywhere = affine.read_positions(
            maps, *plane, image_hu.shape[2:], jnp.zeros_like(start[:, 1:])
        )
        warped = affine.warp_linear(image_hu, everywhere)
        mean, std = _mean_and_std(warped, _inside(batch))
    else:
        mean, std = batch["mean_hu"], batch["std_hu"]
    depth = crop_shape[0]
    if depth != image_hu.shape[1]:
        image_hu, label = (_cut_depth(x, start[:, 0], depth) for x in (image_hu, label))
    positions = affine.read_positions(maps, *plane, crop_shape[1:], start[:, 1:])
    image = normalise(affine.warp_linear(image_hu, positions), mean, std)
    replaced = ("image_hu", "label", "scan_start", "scan_size")
    rest = {k: v for k, v in batch.items() if k not in replaced}
    return rest | {
        "image": image[..., None],
        "label": jnp.asarray(label_table, jnp.int32)[
            affine.warp_nearest(label, positions)
        ],
    }


def normalise(image_hu: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """`(image - mean) / std` case by case; a constant image becomes zero."""
    shape = (-1,) + (1,) * (image_hu.ndim - 1)
    return (image_hu - mean.reshape(shape)) / jnp.maximum(std.reshape(shape), 1.0)


def _inside(batch: Batch) -> jax.Array:
    """Which voxels of the window are the scan's: bool `[B, D, H, W]`."""
    inside = jnp.ones((), bool)
    for axis, length in enumerate(batch["image_hu"].shape[1:]):
        shape = [-1 if a == axis + 1 else 1 for a in range(4)]
        place = jnp.arange(length).reshape(shape)
        first, size = (
            batch[name][:, axis].reshape(-1, 1, 1, 1)
            for name in ("scan_start", "scan_size")
        )
        inside = inside & (place >= first) & (place < first + size)
    return inside


def _mean_and_std(x: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the voxels inside, case by case; the deviation is PyTorch's (n - 1)."""
    space = (1, 2, 3)
    count = inside.sum(space)
    mean = jnp.where(inside, x, 0).sum(space) / count
    apart = jnp.where(inside, x - mean[:, None, None, None], 0)
    return mean, jnp.sqrt(jnp.square(apart).sum(space) / (count - 1))


def _cut_depth(x: jax.Array, start: jax.Array, depth: int) -> jax.Array:
    return jax.vmap(lambda v, s: jax.lax.dynamic_slice_in_dim(v, s, depth, 0))(x, start)
