"""From scan to network input as published: pad, flip, warp, z-score, crop, in NumPy.

The published pipeline works on whole volumes, one step after the other; this one cuts
a window on the host and does the rest in one read on the device. Equal draws give equal
crops.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.augment import affine, augmented_crops
from attunet_jax.data.crops import CropSpec, random_crop
from attunet_jax.data.records import Case
from configs import published

CROP = (6, 8, 8)
READ = (9, 18, 16)
RANGES: dict[str, Any] = dict(
    rotation_degrees=15.0,
    shift_fraction=0.1,
    zoom_range=(0.7, 1.3),
    flip_probability=0.5,
)


@jax.jit
def augmented(batch, key):
    return augmented_crops(
        batch,
        key,
        crop_shape=CROP,
        normalise_over="window",
        label_lookup=(0, 1, 2, 3),
        **RANGES,
    )


@jax.jit
def drawn(key):
    return affine.draw(jax.random.split(key)[0], 1, **RANGES)


def case_of(shape, seed):
    rng = np.random.default_rng(seed)
    return Case(
        image_hu=rng.integers(-1000, 1000, shape).astype(np.int16),
        label=rng.integers(0, 4, shape).astype(np.uint8),
        spacing_mm=np.full(3, 2.0),
        affine=np.eye(4),
        original_shape=shape,
        original_affine=np.eye(4),
        case_id="case",
    )


def padded(volume):
    """At least as large as the crop, by each line's minimum, the scan in the middle."""
    extra = [max(c - n, 0) for c, n in zip(CROP, volume.shape, strict=True)]
    return np.pad(volume, [(e // 2, e - e // 2) for e in extra], mode="minimum")


def warped(volume, angle, zoom, shift, flip, order):
    """Slice by slice: flip, then read at R (Z p + t) about the centre, edge clamped."""
    size = np.array(volume.shape[1:])
    centre = (size - 1) / 2
    pixel = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")).reshape(2, -1)
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    p = (pixel - centre[:, None]) * zoom[:, None] + (shift * size)[:, None]
    points = rotation @ p + centre[:, None]
    axes = [axis for axis, flipped in enumerate(flip) if flipped]
    planes = [
        ndimage.map_coordinates(
            np.flip(plane, tuple(axes)).astype(float),
            points,
            order=order,
            mode="nearest",
        )
        for plane in volume
    ]
    return np.stack(planes).reshape(volume.shape)


@pytest.mark.parametrize("shape", [(7, 12, 10), (4, 16, 9), (9, 6, 7)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_crops_equal_the_published_steps_on_whole_volumes(shape, seed):
    case = case_of(shape, seed)
    spec = CropSpec(window_shape=READ, min_shape=CROP, padding="line_minimum")
    window = random_crop(case, np.random.default_rng(seed), spec)
    batch = {name: jnp.asarray(value)[None] for name, value in window.items()}
    key = jax.random.key(seed)
    got = augmented(batch, key)
    angle, zoom, shift, flip = (np.asarray(x[0], float) for x in drawn(key))
    image = warped(padded(case.image_hu), angle, zoom, shift, flip, order=1)
    image = (image - image.mean()) / image.std(ddof=1)
    label = warped(padded(case.label), angle, zoom, shift, flip, order=0)

    room = np.array(image.shape) - CROP
    for start in np.ndindex(*(room + 1)):
        cut = tuple(slice(s, s + c) for s, c in zip(start, CROP, strict=True))
        if np.allclose(got["image"][0, ..., 0], image[cut], atol=1e-3):
            # Half-way between two voxels rounding may go either way.
            assert (np.asarray(got["label"][0]) != label[cut]).mean() < 0.002
            return
    raise AssertionError("no place of the warped volume gives this crop")


def test_the_published_preset_asks_for_exactly_this():
    config = published.get_config()
    assert {name: config.augment[name] for name in RANGES} == RANGES
    assert config.augment.normalise_over == "window"
    assert config.data.padding == "line_minimum"
    assert config.data.foreground_fraction == 0
    assert config.data.crop_shape == (96, 160, 160)
    # Whole scans of CT-82 at 2 mm: at most 512 x 0.98 mm wide, 466 mm high.
    assert all(
        read >= largest
        for read, largest in zip(
            config.data.read_shape, (466 / 2, 502 / 2, 502 / 2), strict=True
        )
    )
