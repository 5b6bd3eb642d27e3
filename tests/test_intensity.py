"""Statistics and normalisation of HU, against plain float64 NumPy."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.intensity import (
    CtNormalisation,
    HuHistogram,
    HuLevels,
    HuStatistics,
    clip_hu,
    normalise,
)


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


def test_the_numbers_of_ct_are_numpys_of_the_labelled_voxels_of_all_cases():
    rng = np.random.default_rng(5)
    cases = [rng.normal(m, 60, n).astype(np.int16) for m, n in ((90, 900), (140, 7000))]
    cases.append(np.array([3071, -1024], np.int16))
    cases.append(np.zeros(0, np.int16))  # a case without an organ
    every = np.concatenate(cases)
    total = HuHistogram.total(map(HuHistogram.of, cases))
    assert total.size == len(every)
    for percent in (0, 0.5, 50, 99.5, 100):
        expected = np.percentile(every, percent)
        assert total.percentile(percent) == pytest.approx(expected, abs=1e-9)
    found = total.ct_normalisation()
    low, high = np.rint(np.percentile(every, [0.5, 99.5]))
    clipped = every.clip(low, high).astype(float)
    assert (found.low_hu, found.high_hu) == (low, high)
    assert found.mean_hu == pytest.approx(clipped.mean(), abs=1e-9)
    assert found.std_hu == pytest.approx(clipped.std(), abs=1e-9)
    with pytest.raises(ValueError, match="no voxels"):
        HuHistogram.of(cases[-1]).ct_normalisation()


def test_a_histogram_counts_every_value_and_survives_json():
    values = np.array([[-32768, 32767, -5], [-5, 0, 0]], np.int16)
    for counted in (values, values.astype(np.float32) + 0.3):
        found = HuHistogram.of(counted)
        content = json.loads(json.dumps(found.as_json()))
        again = HuHistogram.from_json(content)
        for one in (found, again):
            assert one.size == 6 and one.first_hu == -32768
            hu, counts = np.unique(values, return_counts=True)
            at = np.flatnonzero(one.counts)
            np.testing.assert_array_equal(one.values_hu[at], hu)
            np.testing.assert_array_equal(one.counts[at], counts)
    empty = HuHistogram.of(values[values > 32767])
    assert HuHistogram.from_json(empty.as_json()).size == 0
    for damaged in (
        None,
        {},
        {"first": 0},
        {"first": "0", "counts": "1"},
        {"first": 0, "counts": "1 x"},
        {"first": 0, "counts": "1 -1"},
        {"first": 32767, "counts": "1 1"},
    ):
        with pytest.raises(ValueError):
            HuHistogram.from_json(damaged)


def test_ct_clips_then_normalises_whatever_else_is_in_the_scan():
    numbers = CtNormalisation(low_hu=-40, high_hu=200, mean_hu=90.5, std_hu=50.0)
    scan = np.array([[[-3024, -40, 90], [200, 201, 30000]]], np.int16)
    expected = (np.array([[[-40, -40, 90], [200, 200, 200]]]) - 90.5) / 50
    for values in (scan, scan.astype(np.float32)):
        np.testing.assert_allclose(numbers.normalise(values), expected, rtol=1e-6)
        assert numbers.normalise(values).dtype == np.float32
        assert numbers.clip(values).dtype == values.dtype
    assert scan.min() == -3024  # the scan itself is left alone
    assert CtNormalisation.of_run({"normalisation": numbers.as_json()}) == numbers
    assert CtNormalisation.of_run({"normalisation": None}) is None
    assert CtNormalisation.of_run({}) is None


def test_metal_is_the_mean_before_a_scan_is_resampled_and_bone_stays():
    numbers = CtNormalisation(low_hu=-40, high_hu=200, mean_hu=90.7, std_hu=50.0)
    for dtype in (np.int16, np.float32):
        scan = np.array([[[-1024, 90, 1900, 3071]]], dtype)
        found = numbers.without_metal(scan)
        np.testing.assert_array_equal(found, [[[-1024, 90, 1900, 91]]])
        assert found.dtype == dtype and scan[0, 0, 3] == 3071
        assert numbers.without_metal(scan[..., :3]).base is scan  # no copy


def test_values_outside_the_scale_of_ct_are_clipped_in_a_copy_or_in_place():
    scan = np.array([[[-3024, -1024, 0, 3071, 30000]]], np.int16)
    before = scan.copy()
    expected = [[[-1024, -1024, 0, 3071, 3071]]]
    np.testing.assert_array_equal(clip_hu(scan), expected)
    np.testing.assert_array_equal(scan, before)
    assert clip_hu(scan[..., 1:4]).base is scan  # nothing to do: no copy
    assert clip_hu(scan, in_place=True) is scan
    np.testing.assert_array_equal(scan, expected)


def body() -> np.ndarray:
    """An ellipse of fat and organs in air, int16."""
    d, h, w = np.ogrid[:8, :40, :50]
    reach = ((h - 19.5) / 15) ** 2 + ((w - 24.5) / 20) ** 2 + 0 * d
    scan = np.where(reach < 1, -100, -1000)
    scan[reach < 0.7] = 50
    scan[reach < 0.05] = 400
    return (scan + np.random.default_rng(0).normal(0, 12, scan.shape)).astype(np.int16)


def test_another_unit_is_told_from_training_and_tables_metal_and_padding_are_not():
    def unlike(scan):
        return HuLevels.of(HuHistogram.of(clip_hu(scan))).unlike(spans)

    scan = body()
    spans = HuLevels.spans(
        HuLevels.of(HuHistogram.of(s))
        for s in (scan, scan[:, :30], scan + np.int16(15))
    )
    assert unlike(scan) is None
    padded, metal, table = scan.copy(), scan.copy(), scan.copy()
    padded[:, :6] = -3024
    metal[:, 20:23, 20:23] = 30000
    table[:, 37:] = 200
    wide = np.pad(scan, ((0, 0), (30, 30), (30, 30)), constant_values=-1000)
    for usual in (padded, metal, table, wide, scan[:, 3:-3, 3:-3]):
        assert unlike(usual) is None
    for other, said in (
        (scan + 1024, "darkest voxels are"),
        ((scan + 1000) // 8, "darkest voxels are"),  # an 8-bit picture
        (np.rint(scan / 1000), "darkest voxels are"),  # in thousands of HU
        (scan - 1024, "above -300 HU, "),
        (np.full_like(scan, -1000), "above -300 HU, "),
        (np.where(scan > -500, scan + 300, scan), "half of its tissue"),
    ):
        found = unlike(other.astype(np.int16))
        assert found and said in found and "\n" not in found
