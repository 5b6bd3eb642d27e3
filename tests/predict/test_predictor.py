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


def predictor_of(**run_fields: Any) -> Predictor:
    run: Any = SimpleNamespace(
        run={
            "spacing_mm": [2.0, 1.0, 1.0],
            "blur_mm": 0.0,
            "config": {"predict": SETTINGS, "classes": ["background", "bright"]},
        }
        | run_fields,
        step=3,
        variables={"params": {}, "batch_stats": {}},
        outputs=("background", "bright", "untrained"),
        network=SimpleNamespace(
            widths=(1, 1), apply=above_and_below, convolution="compiler"
        ),
    )
    return Predictor(run)


@pytest.fixture
def predictor():
    """Of a run that says nothing of normalisation, as those of before."""
    return predictor_of()


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


def test_a_run_from_before_takes_padding_and_metal_as_they_are(predictor, image):
    image[:, 0], image[2, 3, 4] = -3024, 30000
    expected = (image - image.mean()) / image.std() > 0.5
    np.testing.assert_array_equal(predictor(image, spacing_mm=(2, 1, 1)), expected)


def test_a_run_that_normalises_each_scan_takes_the_values_within_its_range(image):
    predictor = predictor_of(normalisation=None, hu_range=[-1024, 3071])
    usual = np.where(image == image, image, 0)
    usual[:, 0], usual[2, 3, 4] = -1024, 3071
    image[:, 0], image[2, 3, 4] = -3024, 30000
    expected = (usual - usual.mean()) / usual.std() > 0.5
    np.testing.assert_array_equal(predictor(image, spacing_mm=(2, 1, 1)), expected)
    part = np.s_[1:4, :, 2:5]
    found = predictor.probabilities(image[part], image).argmax(0)
    np.testing.assert_array_equal(found, expected[part])
    assert image.min() == -3024


def test_a_run_with_numbers_of_its_own_normalises_every_scan_by_them(image):
    numbers = {"low_hu": -200, "high_hu": 250, "mean_hu": 60.0, "std_hu": 50.0}
    predictor = predictor_of(normalisation=numbers, hu_range=[-1024, 3071])
    expected = (image.clip(-200, 250) - 60.0) / 50 > 0.5
    for outside in (None, -3024, 2000):
        if outside is not None:
            image[:, 0] = outside
            expected[:, 0] = outside > 0
        labels = predictor(image, spacing_mm=(2, 1, 1))
        np.testing.assert_array_equal(labels, expected)
    part = np.s_[1:4, :, 2:5]
    found = predictor.probabilities(image[part], image).argmax(0)
    np.testing.assert_array_equal(found, expected[part])


def test_metal_hides_no_voxel_beside_it_when_the_scan_is_resampled():
    """From 1 mm to 2 mm: a voxel of 0 HU and one of metal make one of 48, not 1535."""
    numbers = {"low_hu": -200, "high_hu": 200, "mean_hu": 95.0, "std_hu": 20.0}
    predictor = predictor_of(
        normalisation=numbers, hu_range=[-1024, 3071], spacing_mm=[1.0, 1.0, 2.0]
    )
    scan = np.zeros((4, 4, 8), np.int16)
    scan[..., 4] = 30000
    assert not predictor(scan, spacing_mm=(1, 1, 1)).any()
    scan[..., 4] = 250  # an organ
    assert predictor(scan, spacing_mm=(1, 1, 1))[..., 4].all()


def test_values_unlike_those_of_training_are_said(predictor, image):
    spans = {
        "air_hu": [-895, -890],
        "tissue_hu": [280, 310],
        "tissue_share": [0.6, 0.7],
    }
    knows = predictor_of(training_hu=spans)
    assert knows.unlike_training(image, spacing_mm=(2, 1, 1)) is None
    said = knows.unlike_training(Volume.of_array(image + np.int16(2000), (2, 1, 1)))
    assert said and "darkest voxels" in said
    assert predictor.unlike_training(image + 2000, spacing_mm=(2, 1, 1)) is None


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
