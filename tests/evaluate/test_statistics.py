"""Paired tests against ranks counted by hand and all sign patterns."""

import itertools

import numpy as np
import pytest

from attunet_jax.evaluate.statistics import paired_test


def rows(values, organ="pancreas") -> list[dict]:
    return [
        {"case_id": f"case{i}", "organ": organ, "dice": value}
        for i, value in enumerate(values)
    ]


def compare(first, second):
    return paired_test(first, second, organ="pancreas", metric="dice", seed=0)


def test_six_pairs_that_point_one_way_have_p_of_two_in_64():
    test = compare(rows([0.5] * 6), rows([0.51, 0.52, 0.54, 0.58, 0.6, 0.7]))
    assert test.n == 6
    assert test.p == pytest.approx(2 / 64)
    assert test.mean_difference == pytest.approx((1 + 2 + 4 + 8 + 10 + 20) / 600)
    assert test.why_not == ""


def test_p_is_the_share_of_sign_patterns_with_as_extreme_a_rank_sum():
    differences = np.array([0.03, -0.01, 0.05, 0.08, -0.02, 0.11, 0.13, 0.21])
    ranks = np.abs(differences).argsort().argsort() + 1
    middle = ranks.sum() / 2
    seen = abs(ranks[differences > 0].sum() - middle)
    extreme = [
        abs(np.dot(signs, ranks) - middle) >= seen
        for signs in itertools.product((0, 1), repeat=8)
    ]
    test = compare(rows([0.5] * 8), rows(0.5 + differences))
    assert test.p == pytest.approx(np.mean(extreme))
    assert compare(rows(0.5 + differences), rows([0.5] * 8)).p == test.p


def test_only_cases_in_which_both_are_defined_are_paired():
    first = rows([0.1, None, 0.3, 0.4])
    second = rows([0.2, 0.9, None, 0.7])[1:] + rows([0.2]) + rows([1.0] * 9, "spleen")
    test = compare(first, second)
    assert test.n == 2
    assert test.mean_difference == pytest.approx((0.1 + 0.3) / 2)


def test_fewer_than_six_pairs_are_not_tested():
    test = compare(rows([0.1] * 5), rows([0.2, 0.3, 0.4, 0.5, 0.6]))
    assert test.p is None and test.low is None and test.high is None
    assert test.mean_difference == pytest.approx(0.3)
    assert test.why_not == "not tested: 5 pairs, fewer than 6"
    assert compare([], []).mean_difference is None


def test_equal_runs_do_not_differ():
    test = compare(rows([0.1, 0.2, 0.3] * 3), rows([0.1, 0.2, 0.3] * 3))
    assert (test.p, test.mean_difference, test.low, test.high) == (1, 0, 0, 0)


def test_the_interval_is_that_of_a_mean_and_repeats_with_its_seed():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.02, 0.05, 200)
    first, second = rows(np.zeros(200)), rows(differences)
    test = compare(first, second)
    error = differences.std() / np.sqrt(200)
    assert test.low == pytest.approx(differences.mean() - 1.96 * error, abs=2e-4)
    assert test.high == pytest.approx(differences.mean() + 1.96 * error, abs=2e-4)
    assert compare(first, second) == test
    other = paired_test(first, second, organ="pancreas", metric="dice", seed=1)
    assert (other.p, other.low != test.low) == (test.p, True)


def test_a_case_with_two_rows_is_refused():
    with pytest.raises(ValueError, match="case0 has two rows for pancreas"):
        compare(rows([0.5]), rows([0.5]) * 2)
