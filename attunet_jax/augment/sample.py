"""Turns windows of scans into the network's input, on the device.

All functions are pure, (global batch, key) -> batch. The input batch is that of
`data/batch.py`. The result has `image [B, d, h, w, 1]` float32 and
`label [B, d, h, w]` int32 in place of windows and scan positions, and the other fields
of the input unchanged. Only where the data has voxels without a truth it has
`mask [B, d, h, w]` bool besides: False there, so that they count in no loss and score.
"""

import jax
import jax.numpy as jnp

from attunet_jax.augment import affine
from attunet_jax.intensity import normalise

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
    label_lookup: tuple[int, ...],
    ignore_value: int | None = None,
) -> Batch:
    """Cuts a random crop out of the randomly warped and flipped window.

    `normalise_over` "case" uses the stored statistics of the scan, "window" those of
    the warped window. `label_lookup` is the output node of each stored label value;
    `ignore_value` that of voxels without a truth, None where the data has none.
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
    labels = label_lookup, ignore_value
    return _crops(batch, maps, start, crop_shape, normalise_over, *labels)


def centre_crops(
    batch: Batch,
    *,
    crop_shape: tuple[int, int, int],
    normalise_over: str,
    label_lookup: tuple[int, ...],
    ignore_value: int | None = None,
) -> Batch:
    """Cuts the centre crop without augmentation, for validation."""
    room = batch["scan_size"] - jnp.asarray(crop_shape)
    start = batch["scan_start"] + room // 2
    maps = affine.identity(len(start))
    labels = label_lookup, ignore_value
    return _crops(batch, maps, start, crop_shape, normalise_over, *labels)


def _crops(
    batch: Batch,
    maps: affine.Affine,
    start: jax.Array,
    crop_shape: tuple[int, int, int],
    normalise_over: str,
    label_lookup: tuple[int, ...],
    ignore_value: int | None,
) -> Batch:
    image_hu, label = batch["image_hu"], batch["label"]
    plane = batch["scan_start"][:, 1:], batch["scan_size"][:, 1:]
    if normalise_over == "window":
        # The published order: statistics of the whole warped scan, then the crop.
        positions = affine.read_positions(
            maps, *plane, image_hu.shape[2:], jnp.zeros_like(start[:, 1:])
        )
        warped = affine.warp_linear(image_hu, positions)
        mean, std = _mean_and_std(warped, _inside(batch))
    else:
        mean, std = batch["mean_hu"], batch["std_hu"]
    depth = crop_shape[0]
    if depth != image_hu.shape[1]:
        image_hu, label = (_cut_depth(x, start[:, 0], depth) for x in (image_hu, label))
    positions = affine.read_positions(maps, *plane, crop_shape[1:], start[:, 1:])
    image = normalise(affine.warp_linear(image_hu, positions), mean, std)
    stored = affine.warp_nearest(label, positions)
    replaced = ("image_hu", "label", "scan_start", "scan_size")
    crops = {k: v for k, v in batch.items() if k not in replaced}
    crops["image"] = image[..., None]
    crops["label"] = jnp.asarray(label_lookup, jnp.int32)[stored]
    if ignore_value is not None:
        crops["mask"] = stored != ignore_value
    return crops


def _inside(batch: Batch) -> jax.Array:
    """Returns which voxels of the window are the scan's, bool `[B, D, H, W]`."""
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
    """Returns mean and deviation (n - 1, as PyTorch's) of each case's voxels inside."""
    space = (1, 2, 3)
    count = inside.sum(space)
    mean = jnp.where(inside, x, 0).sum(space) / count
    deviation = jnp.where(inside, x - mean[:, None, None, None], 0)
    return mean, jnp.sqrt(jnp.square(deviation).sum(space) / (count - 1))


def _cut_depth(x: jax.Array, start: jax.Array, depth: int) -> jax.Array:
    return jax.vmap(lambda v, s: jax.lax.dynamic_slice_in_dim(v, s, depth, 0))(x, start)
