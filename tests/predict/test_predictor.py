"""Predictions of whole scans by a network that is a plain formula of its input."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.predict.predictor import Predictor
from attunet_jax.volume import Volume

SETTINGS = {
    "argmax_over": "classes",
    "spatial": 1,
    "average_flips": False,
    "whole_volume_limit_vox": 10**6,
}


def above_and_below(variables, image, train):
    """Three classes: a normalised voxel of 0.5 or less, above that, and never."""
    assert not train
    return jnp.concatenate([0.5 - image, image - 0.5, image + 9], -1)


@pytest.fixture
def predictor():
    run: Any = SimpleNamespace(
        run={
            "spacing_mm": [2.0, 1.0, 1.0],
            "blur_mm": 0.0,
            "config": {"predict": SETTINGS, "classes": ["background", "bright"]},
        },
        step=3,
        variables={"params": {}, "batch_stats": {}},
        outputs=("background", "bright", "untrained"),
        network=SimpleNamespace(
            widths=(1, 1), apply=above_and_below, convolution="compiler"
        ),
    )
    return Predictor(run)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(-900, 900, (5, 7, 9)).astype(np.int16)


def test_a_scan_at_the_networks_spacing_gets_the_formulas_labels(predictor, image):
    expected = (image - image.mean()) / image.std() > 0.5
    for scan in (image, image.astype(np.float64), image.astype(np.int32)):
        labels = predictor(scan, spacing_mm=(2, 1, 1))
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected)


def test_a_volume_and_its_array_get_the_same_labels(predictor, image):
    spacing_mm = (4, 0.7, 1.5)
    volume = Volume.of_array(image, spacing_mm)
    labels = predictor(volume)
    assert labels.shape == image.shape and 0 < labels.sum() < image.size
    np.testing.assert_array_equal(labels, predictor.label_map(volume))
    np.testing.assert_array_equal(
        labels, predictor.label_map(image, spacing_mm=spacing_mm)
    )


def test_a_part_is_normalised_by_the_whole_scan(predictor, image):
    bright = (image - image.mean()) / image.std() > 0.5
    part = np.s_[1:4, :, 2:5]
    found = predictor.probabilities(image[part], image).argmax(0)
    np.testing.assert_array_equal(found, bright[part])


def test_what_is_no_scan_is_refused_in_words(predictor, image):
    with pytest.raises(TypeError, match="NumPy array .* not str"):
        predictor("scan.nii.gz")
    with pytest.raises(ValueError, match="needs spacing_mm"):
        predictor(image)
    with pytest.raises(ValueError, match="spacing_mm is for arrays"):
        predictor(Volume.of_array(image, (1, 1, 1)), spacing_mm=(1, 1, 1))
    for spacing_mm in [(1, 1), (1, 1, 0), (1, 1, float("nan")), 1]:
        with pytest.raises(ValueError, match="three lengths above 0"):
            predictor(image, spacing_mm=spacing_mm)
    for array in (image[0], image[None], image[:0], image > 0, image + 1j):
        with pytest.raises(ValueError, match="no scan"):
            predictor(array, spacing_mm=(1, 1, 1))
    with pytest.raises(ValueError, match="NaN"):
        predictor(np.where(image > 0, np.nan, 0), spacing_mm=(1, 1, 1))
