"""Warps, flips and crops against plain NumPy and SciPy statements of the formulas."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.augment import affine, augmented_crops, centre_crops

SHAPE = (5, 9, 7)
AUGMENTED = jax.jit(
    augmented_crops,
    static_argnames=(
        *("crop_shape", "rotation_degrees", "shift_fraction", "zoom_range"),
        *("flip_probability", "normalise_over", "label_lookup", "ignore_value"),
    ),
)
IDENTITY = tuple(range(4))
UNKNOWN_255 = (*IDENTITY, *[0] * 251, 255)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "image_hu": rng.integers(-1000, 1000, (2, *SHAPE)).astype(np.int16),
        "label": rng.integers(0, 4, (2, *SHAPE)).astype(np.uint8),
        "mean_hu": np.array([10, -20], np.float32),
        "std_hu": np.array([100, 300], np.float32),
        "scan_start": np.zeros((2, 3), np.int32),
        "scan_size": np.tile(np.array(SHAPE, np.int32), (2, 1)),
    }


@partial(jax.jit, static_argnums=3)
def warped(batch, maps, offset, out):
    """(positions, image, label) of a scan that fills the plane."""
    start, size = jnp.zeros((2, 2), int), jnp.tile(jnp.array(SHAPE[1:]), (2, 1))
    positions = affine.read_positions(maps, start, size, out, offset)
    image = affine.warp_linear(batch["image_hu"], positions)
    return positions, image, affine.warp_nearest(batch["label"], positions)


def centre(batch, **settings):
    return jax.jit(partial(centre_crops, crop_shape=(3, 5, 3), **settings))(batch)


def maps(angle=0.0, zoom=(1.0, 1.0), shift=(0.0, 0.0), flip=(False, False)):
    fields = (
        np.full(2, angle, np.float32),
        np.tile(np.array(zoom, np.float32), (2, 1)),
        np.tile(np.array(shift, np.float32), (2, 1)),
        np.tile(flip, (2, 1)),
    )
    return affine.Affine(*map(jnp.asarray, fields))


def expected_positions(angle, zoom, shift, flip, plane, out, start):
    """The formula of the module, one pixel after the other, in float64."""
    positions = np.zeros((*out, 2))
    centre = (np.array(plane) - 1) / 2
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    for r in range(out[0]):
        for c in range(out[1]):
            p = np.array([r + start[0], c + start[1]]) - centre
            q = rotation @ (np.array(zoom) * p + np.array(shift) * np.array(plane))
            q = np.where(flip, -q, q) + centre
            positions[r, c] = np.clip(q, 0, np.array(plane) - 1)
    return positions


CASES = [
    (0.2, (0.8, 1.2), (0.1, -0.05), (False, False), (0, 0), SHAPE[1:]),
    (-0.26, (1.3, 0.7), (0.0, 0.1), (True, False), (2, 1), (5, 4)),
    (0.0, (1.0, 1.0), (0.0, 0.0), (True, True), (0, 0), SHAPE[1:]),
]


@pytest.mark.parametrize("angle, zoom, shift, flip, start, out", CASES)
def test_warp_equals_scipy_at_the_stated_positions(
    batch, angle, zoom, shift, flip, start, out
):
    where = expected_positions(angle, zoom, shift, flip, SHAPE[1:], out, start)
    got, image, label = warped(
        batch, maps(angle, zoom, shift, flip), np.tile(start, (2, 1)), out
    )
    np.testing.assert_allclose(got[0], where, atol=2e-5)
    for b in range(2):
        for d in range(SHAPE[0]):
            points = where.reshape(-1, 2).T
            plane = batch["image_hu"][b, d].astype(float)
            linear = ndimage.map_coordinates(plane, points, order=1, mode="nearest")
            np.testing.assert_allclose(image[b, d].ravel(), linear, atol=0.05)
            nearest = np.round(np.asarray(got[b]).reshape(-1, 2)).astype(int)
            expected = batch["label"][b, d][nearest[:, 0], nearest[:, 1]]
            np.testing.assert_array_equal(label[b, d].ravel(), expected)


def test_flip_of_both_axes_is_numpy_flip(batch):
    _, flipped, _ = warped(
        batch, maps(flip=(True, True)), np.zeros((2, 2), int), SHAPE[1:]
    )
    np.testing.assert_allclose(flipped, batch["image_hu"][:, :, ::-1, ::-1], atol=0.02)


def test_centre_crop_is_a_plain_slice_normalised_by_the_case(batch):
    lookup = (0, 2, 0, 1)
    crop = centre(batch, normalise_over="case", label_lookup=lookup)
    cut = np.s_[:, 1:4, 2:7, 2:5]
    image = (
        batch["image_hu"][cut] - np.array([10, -20], np.float32)[:, None, None, None]
    ) / (np.array([100, 300], np.float32)[:, None, None, None])
    np.testing.assert_allclose(crop["image"][..., 0], image, atol=1e-5)
    np.testing.assert_array_equal(crop["label"], np.array(lookup)[batch["label"][cut]])


def test_a_mask_comes_only_where_the_data_has_voxels_without_a_truth(batch):
    settings: dict[str, Any] = {"normalise_over": "case", "label_lookup": IDENTITY}
    assert "mask" not in centre(batch, **settings)
    unknown = np.random.default_rng(1).random(batch["label"].shape) < 0.3
    batch["label"][unknown] = 255
    settings |= {"label_lookup": UNKNOWN_255, "ignore_value": 255}
    crop = centre(batch, **settings)
    cut = np.s_[:, 1:4, 2:7, 2:5]
    np.testing.assert_array_equal(crop["mask"], ~unknown[cut])
    np.testing.assert_array_equal(crop["label"], batch["label"][cut])


def test_window_statistics_are_those_of_the_whole_window(batch):
    crop = centre(batch, normalise_over="window", label_lookup=IDENTITY)
    window = batch["image_hu"][0].astype(np.float64)
    expected = (window[1:4, 2:7, 2:5] - window.mean()) / window.std(ddof=1)
    np.testing.assert_allclose(crop["image"][0, ..., 0], expected, atol=1e-5)


def augmented(batch, key, **changes):
    settings: dict[str, Any] = dict(
        crop_shape=(3, 5, 3),
        rotation_degrees=15.0,
        shift_fraction=0.1,
        zoom_range=(0.7, 1.3),
        flip_probability=0.5,
        normalise_over="case",
        label_lookup=IDENTITY,
    )
    return AUGMENTED(batch, jax.random.key(key), **(settings | changes))


def test_same_key_same_crops_and_another_key_others(batch):
    a, b, c = (augmented(batch, key)["image"] for key in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


def test_without_ranges_a_crop_is_some_slice_of_the_scan(batch):
    crop = augmented(
        batch,
        3,
        rotation_degrees=0.0,
        shift_fraction=0.0,
        zoom_range=(1.0, 1.0),
        flip_probability=0.0,
    )["image"][0, ..., 0]
    scan = (batch["image_hu"][0] - 10.0) / 100
    windows = np.lib.stride_tricks.sliding_window_view(scan, (3, 5, 3))
    distance = np.abs(windows - np.asarray(crop)).max((-1, -2, -3))
    assert distance.min() < 1e-4


def test_image_and_label_are_warped_alike(batch):
    """A label that marks bright voxels still marks them afterwards, as 255 does."""
    bright = np.zeros((2, 3, 40, 40), np.int16)
    bright[:, :, 12:28, 10:22] = 1000
    bright[:, :, 12:28, 26:34] = -1000
    blob = batch | {
        "image_hu": bright,
        "label": np.select([bright > 0, bright < 0], [1, 255]).astype(np.uint8),
        "scan_size": np.tile(np.array([3, 40, 40], np.int32), (2, 1)),
    }
    words: Any = {"label_lookup": UNKNOWN_255, "ignore_value": 255}
    crop = augmented(blob, 5, crop_shape=(3, 40, 40), **words)
    hu = crop["image"][0, ..., 0] * 100 + 10
    inside = np.asarray(crop["label"][0]) == 1
    assert inside.sum() > 100
    # At a corner of the blob the nearest voxel may weigh as little as a quarter.
    assert (np.asarray(hu)[inside] >= 249).all()
    assert (np.asarray(hu)[~inside] <= 751).all()
    unknown = ~np.asarray(crop["mask"][0])
    assert unknown.sum() > 100 and not (unknown & inside).any()
    assert (np.asarray(hu)[unknown] <= -249).all()
    assert (np.asarray(hu)[~unknown] >= -751).all()
