"""Comparisons of networks' rows, worked out by hand."""

import pytest

from attunet_jax.evaluate.statistics.comparison import compare_networks, compare_pair


def rows(values, organ="pancreas", metric="dice", **more) -> list[dict]:
    return [
        {"case_id": f"case{i}", "organ": organ, metric: value, **more}
        for i, value in enumerate(values)
    ]


def compare(first, second, metric="dice", **more):
    names = "unet", "attention_unet"
    return compare_pair(names, first, second, organ="pancreas", metric=metric, **more)


def test_six_pairs_that_point_one_way():
    found = compare(rows([0.5] * 6), rows([0.51, 0.52, 0.54, 0.58, 0.6, 0.7]))
    assert (found.n, found.undefined) == (6, 0)
    assert found.p == pytest.approx(2 / 64)
    assert found.mean_difference == pytest.approx(0.075)
    # Squares of the distances from 0.075: 0.02475; t = 2.5706 at five degrees.
    assert found.std == pytest.approx((0.02475 / 5) ** 0.5)
    half = 2.570582 * (0.02475 / 30) ** 0.5
    interval = 0.075 - half, 0.075 + half
    assert (found.low, found.high) == pytest.approx(interval, abs=1e-7)
    assert found.better == "attention_unet"


def test_less_is_better_for_distances_and_errors_count_without_their_sign():
    nearer = compare(
        rows([3.0] * 6, metric="surface_distance_mm"),
        rows([1, 1.5, 2, 1, 1, 1], metric="surface_distance_mm"),
        "surface_distance_mm",
    )
    assert nearer.better == "attention_unet" and (nearer.false_claim or 1) < 0.01
    errors = compare(
        rows([-9, 9, 9, -9, 9, -9], metric="volume_error_ml"),
        rows([1, -1, 2, -1, 1, 1], metric="volume_error_ml"),
        "volume_error_ml",
    )
    assert errors.mean_difference == pytest.approx(7 / 6 - 9)
    assert errors.better == "attention_unet"


def test_only_cases_in_which_both_are_defined_are_paired():
    first = rows([0.1, None, 0.3, 0.4])
    second = rows([0.2, 0.9, None, 0.7])[1:] + rows([0.2]) + rows([1.0] * 9, "spleen")
    found = compare(first, second)
    assert (found.n, found.undefined) == (2, 2)
    assert found.mean_difference == pytest.approx((0.1 + 0.3) / 2)
    assert compare([], []).mean_difference is None


def test_a_network_is_not_better_in_distance_by_what_it_missed():
    metric = "surface_distance_mm"
    first = rows([2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6], metric=metric, dice=0.5)
    second = rows([1.0, 1.2, 1.1, 1.3, 1.2, 1.4, None], metric=metric, dice=0.5)
    assert compare(first[:6], second[:6], metric).better == "attention_unet"
    missed = {**second[6], "dice": 0.0, "diagonal_mm": 100.0}
    found = compare(first, [*second[:6], missed], metric)
    assert found.n == 6 and found.high is not None and found.high < 0
    # (-1 - 0.9 - 1.1 - 1 - 1.2 - 1.1 + 97.4) / 7
    assert found.penalised_difference == pytest.approx(91.1 / 7)
    assert (found.penalised_n, found.better) == (7, None)


def test_equal_runs_and_constant_gains():
    equal = compare(rows([0.1, 0.2, 0.3] * 3), rows([0.1, 0.2, 0.3] * 3))
    assert (equal.p, equal.mean_difference, equal.low, equal.high) == (1, 0, 0, 0)
    assert (equal.false_claim, equal.detectable, equal.better) == (0.5, 0, None)
    gain = compare(rows([0.1, 0.2, 0.3] * 3), rows([0.2, 0.3, 0.4] * 3))
    assert (gain.low, gain.high, gain.false_claim) == (0.1, 0.1, 0)
    assert gain.better == "attention_unet"
    single = compare(rows([0.1]), rows([0.9]))
    assert (single.n, single.low, single.p, single.false_claim) == (1, None, 1, None)
    assert (single.std, single.detectable, single.better) == (None, None, None)


def test_seeds_are_averaged_before_cases_are_paired():
    first = rows([0.2, 0.4], seed=0) + rows([0.4, 0.6], seed=1)
    found = compare(first, rows([0.4, 0.8]))
    # Case means 0.3 and 0.5.
    assert (found.n, found.mean_difference) == (2, pytest.approx(0.2))


def test_all_pairs_of_three_networks_are_one_family():
    networks = {
        "a": rows([0.5] * 6),
        "b": rows([0.51, 0.52, 0.54, 0.58, 0.6, 0.7]),
        "c": rows([0.4, 0.42, 0.3, 0.41, 0.35, 0.45]),
    }
    found = compare_networks(
        networks, organs=["pancreas", "spleen"], metrics=["dice", "recall"]
    )
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.p_holm for c in found] == pytest.approx([6 / 64] * 3)


def test_bca_is_an_option_of_the_interval():
    first, second = rows([0.5] * 6), rows([0.51, 0.52, 0.54, 0.58, 0.6, 0.7])
    student, bca = compare(first, second), compare(first, second, interval="bca")
    assert bca.low != student.low and bca.p == student.p


def test_a_case_with_two_rows_is_refused():
    with pytest.raises(ValueError, match="case0 has two rows for pancreas"):
        compare(rows([0.5]), rows([0.5]) * 2)
