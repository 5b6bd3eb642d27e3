"""Intervals of a mean against scipy, textbook numbers and simulation."""

import numpy as np
import pytest
from scipy import stats

from attunet_jax.evaluate.statistics.intervals import mean_interval, t_interval

DICE = np.array([0.81, 0.84, 0.79, 0.9, 0.55, 0.86, 0.83, 0.88])


def test_the_interval_is_scipy_s_one_of_student():
    low, high = mean_interval(DICE)
    theirs = stats.ttest_1samp(DICE, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_three_values_by_hand():
    # Mean 2, deviation 1, t = 4.3027 at two degrees: 4.3027 / sqrt(3) = 2.4841.
    assert mean_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        (2 - 2.4841, 2 + 2.4841), abs=1e-4
    )


def test_equal_values_and_single_ones_have_defined_answers():
    assert mean_interval(np.array([])) == (None, None)
    assert mean_interval(np.array([0.7])) == (None, None)
    for method in ("t", "bca"):
        assert mean_interval(np.full(10, 0.1), method) == (0.1, 0.1)
        assert mean_interval(np.array([0.1, 0.3]), method)[0] is not None
    with pytest.raises(ValueError, match="must be one of t, bca"):
        mean_interval(DICE, "median")


def test_bca_repeats_with_its_seed_and_leans_to_the_longer_tail():
    low, high = mean_interval(DICE, "bca", seed=3)
    assert (low, high) == mean_interval(DICE, "bca", seed=3)
    assert low != mean_interval(DICE, "bca", seed=4)[0]
    # One case of 0.55 pulls it down.
    assert low is not None and high is not None
    assert DICE.mean() - low > high - DICE.mean()


def test_the_interval_holds_the_mean_in_95_of_100_samples_of_50_cases():
    rng = np.random.default_rng(0)
    # Dice: skewed, below 1, mean 8 / 10; differences: a few cases much better.
    samples = {
        8 / 10: rng.beta(8, 2, (20_000, 50)),
        0.02: rng.normal(0.01, 0.03, (20_000, 50))
        + 0.1 * (rng.random((20_000, 50)) < 0.1),
    }
    for mean, values in samples.items():
        low, high = t_interval(values)
        assert 0.93 < np.mean((low <= mean) & (mean <= high)) < 0.97
