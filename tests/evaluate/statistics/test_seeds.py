"""Variance of cases and seeds by hand and by simulation; ranks by counting."""

import numpy as np
import pytest

from attunet_jax.evaluate.statistics.ranks import ranks
from attunet_jax.evaluate.statistics.seeds import has_seeds, spread_of_seeds


def rows(scores, organ="liver", metric="dice", **more) -> list[dict]:
    """A row for each seed and case of a matrix `[seeds, cases]`."""
    return [
        {"case_id": f"c{i}", "organ": organ, "seed": seed, metric: value, **more}
        for seed, of_seed in enumerate(scores)
        for i, value in enumerate(of_seed)
    ]


def test_three_cases_and_two_seeds_by_hand():
    # Means: cases 1, 3, 8; seeds 3, 5; all 4. Rest: 0, 1, -1 and 0, -1, 1.
    # MS: cases 2 (9 + 1 + 16) / 2 = 26; seeds 3 * 2 / 1 = 6; rest 4 / 2 = 2.
    found = spread_of_seeds(rows([[0, 3, 6], [2, 3, 10]]), "liver", "dice")
    assert found is not None
    assert (found.n, found.seeds, found.left_out, found.mean) == (3, 2, 0, 4)
    assert found.seed_means == {"0": 3, "1": 5}
    assert found.std_cases**2 == pytest.approx((26 - 2) / 2)
    assert found.std_seeds**2 == pytest.approx((6 - 2) / 3)
    assert found.std_rest**2 == pytest.approx(2)
    # Variance of the mean (26 + 6 - 2) / 6 = 5; degrees of freedom
    # 30**2 / (26**2 / 2 + 6**2 / 1 + 2**2 / 2) = 2.3936: t = 3.6943.
    assert found.high - 4 == pytest.approx(3.6943 * 5**0.5, rel=1e-3)


def test_the_parts_of_the_variance_are_found_again():
    rng = np.random.default_rng(0)
    scores = (
        rng.normal(0.8, 0.1, 300)
        + rng.normal(0, 0.05, (100, 1))
        + rng.normal(0, 0.02, (100, 300))
    )
    found = spread_of_seeds(rows(scores), "liver", "dice")
    assert found is not None
    parts = found.std_cases, found.std_seeds, found.std_rest
    assert parts == pytest.approx((0.1, 0.05, 0.02), rel=0.15)


def test_no_variance_is_negative_and_incomplete_cases_are_left_out():
    # Seed means are equal: their mean square, 0, is below the rest's.
    found = spread_of_seeds(rows([[0.5, 0.7, 0.1], [0.7, 0.5, None]]), "liver", "dice")
    assert found is not None
    assert (found.n, found.left_out, found.std_seeds) == (2, 1, 0)
    same = spread_of_seeds(rows([[0.1] * 7] * 3), "liver", "dice")
    assert same is not None and same.high - same.low < 1e-12
    assert spread_of_seeds(rows([[0.5, 0.7]]), "liver", "dice") is None
    assert spread_of_seeds(rows([[0.5], [0.7]]), "liver", "dice") is None
    assert spread_of_seeds([], "liver", "dice") is None
    assert has_seeds(rows([[1], [1]])) and not has_seeds(rows([[1]]))


def test_ranks_of_networks_that_differ_in_every_case_are_certain():
    networks = {
        "b": rows([[0.5, 0.6, 0.7]]),
        "a": rows([[0.8, 0.9, 0.9], [0.85, 0.9, 0.9]]),
        "c": rows([[0.1, 0.2, 0.3]]),
    }
    found = ranks(networks, "liver", "dice")
    assert [(r.network, r.rank, r.low, r.high) for r in found] == [
        ("b", 2, 2, 2),
        ("a", 1, 1, 1),
        ("c", 3, 3, 3),
    ]
    distances = {
        n: [{**r, "hausdorff95_mm": r["dice"]} for r in networks[n]] for n in networks
    }
    found = ranks(distances, "liver", "hausdorff95_mm")
    assert [r.rank for r in found] == [2, 3, 1]
    assert ranks(dict(list(networks.items())[:2]), "liver", "dice") == []


def test_the_interval_of_a_rank_covers_what_other_cases_and_seeds_would_give():
    # b beats a in two of three cases, by less: means 0.6 and 0.7 - but one draw in 27
    # has b's best case alone, and many have it ahead.
    networks = {
        "a": rows([[0.5, 0.5, 0.9]]),
        "b": rows([[0.6, 0.6, 0.6]]),
        "c": rows([[0.1, 0.1, 0.1]]),
    }
    found = {r.network: r for r in ranks(networks, "liver", "dice")}
    assert (found["a"].rank, found["a"].low, found["a"].high) == (1, 1, 2)
    assert (found["c"].low, found["c"].high) == (3, 3)
    # All cases alike, but one of a's two seeds fails: seeds are drawn too.
    networks["a"] = rows([[0.9] * 3, [0.4] * 3])
    found = {r.network: r for r in ranks(networks, "liver", "dice")}
    assert (found["a"].rank, found["a"].low, found["a"].high) == (1, 1, 2)
    tied = {name: rows([[0.1, 0.2]]) for name in "abc"}
    assert {(r.rank, r.low, r.high) for r in ranks(tied, "liver", "dice")} == {
        (2, 2, 2)
    }


def test_a_missed_organ_counts_in_a_rank_with_its_penalty():
    metric = "surface_distance_mm"
    networks = {
        "misses": rows([[1.0, None]], metric=metric, dice=0.1, diagonal_mm=99.0),
        "finds": rows([[2.0, 2.0]], metric=metric),
        "far": rows([[3.0, 3.0]], metric=metric),
    }
    found = {r.network: r.rank for r in ranks(networks, "liver", metric)}
    assert found == {"misses": 3, "finds": 1, "far": 2}
