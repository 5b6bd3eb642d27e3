"""Statistics and normalisation of HU, against plain float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.intensity import HuStatistics, normalise


def test_statistics_are_those_of_all_voxels():
    image = np.random.default_rng(2).integers(-1024, 1500, (9, 8, 7)).astype(np.int16)
    values = image.astype(np.float64)
    for scan in (image, image.astype(np.float32)):
        hu = HuStatistics.of(scan)
        assert (hu.min, hu.mean) == (values.min(), values.mean())
        np.testing.assert_allclose(hu.std, values.std(), rtol=1e-12)


def test_a_constant_image_has_no_deviation_and_becomes_zero():
    for value in (-32768, -1024, 0, 32767):
        image = np.full((30, 70, 50), value, np.int16)
        assert HuStatistics.of(image) == HuStatistics(value, value, 0.0)
        assert not HuStatistics.of(image).normalise(image).any()


def test_extreme_values_do_not_overflow():
    image = np.full((20, 100, 100), 32767, np.int16)
    image[:10] = -32768
    hu = HuStatistics.of(image)
    assert hu.mean == -0.5 and hu.std == pytest.approx(32767.5, rel=1e-12)


def test_training_and_prediction_normalise_alike():
    """A batch on the device and a scan on the host, one with a deviation below 1 HU."""
    rng = np.random.default_rng(0)
    scans = np.stack([rng.normal(30, s, (4, 5, 6)) for s in (200, 0.1)])
    scans = scans.astype(np.float32)
    hu = [HuStatistics.of(scan) for scan in scans]
    mean, std = np.array([(h.mean, h.std) for h in hu], np.float32).T
    batch = normalise(jnp.asarray(scans), jnp.asarray(mean), jnp.asarray(std))
    for i, divisor in enumerate((scans[0].std(dtype=np.float64), 1.0)):
        alone = hu[i].normalise(scans[i])
        assert alone.dtype == np.float32
        np.testing.assert_allclose(batch[i], alone, rtol=1e-6, atol=1e-6)
        expected = (scans[i] - scans[i].mean(dtype=np.float64)) / divisor
        np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)
