"""Paired differences against scipy, all sign patterns, and numbers from tables."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from attunet_jax.evaluate.statistics.paired import (
    false_claim_probability,
    holm,
    paired_differences,
    smallest_detectable,
    wilcoxon_p,
)


def by_sign_patterns(differences: np.ndarray) -> float:
    """The share of sign patterns whose rank sum is as far from the middle."""
    ranks = stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    seen = abs(ranks[differences > 0].sum() - middle)
    patterns = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    return float(np.mean(np.abs(patterns @ ranks - middle) >= seen - 1e-9))


def test_p_is_the_share_of_sign_patterns_with_as_extreme_a_rank_sum():
    differences = np.array([0.03, -0.01, 0.05, 0.08, -0.02, 0.11, 0.13, 0.21])
    assert wilcoxon_p(differences) == pytest.approx(by_sign_patterns(differences))
    assert wilcoxon_p(-differences) == wilcoxon_p(differences)


def test_ties_share_their_rank_though_their_last_bits_differ():
    first = [0.5, 0.6, 0.7, 0.5, 0.6, 0.4, 0.5]
    second = [0.6, 0.7, 0.8, 0.4, 0.8, 0.6, 0.5]
    # 0.1, 0.1, 0.1, -0.1: ranks 2.5; 0.2, 0.2: ranks 5.5; the last pair is equal.
    differences = paired_differences(first, second)
    assert sorted(set(differences)) == [-0.1, 0.0, 0.1, 0.2]
    # 21 - 2.5 of 21; as extreme: none negative, or one of four: (1 + 4) * 2 of 64.
    assert wilcoxon_p(differences) == pytest.approx(10 / 64)
    assert by_sign_patterns(differences[:6]) == pytest.approx(10 / 64)


def test_many_pairs_with_ties_agree_with_scipy():
    rng = np.random.default_rng(0)
    differences = rng.integers(-3, 6, 60) / 10
    theirs = stats.wilcoxon(differences[differences != 0])
    assert wilcoxon_p(differences) == pytest.approx(theirs.pvalue)  # pyright: ignore


def test_holm_multiplies_by_what_is_left_of_the_family_and_never_falls():
    # 4 * 0.01, 3 * 0.015, 2 * 0.02 (below the one before), 1 * 0.2.
    corrected = holm([0.2, 0.01, None, 0.02, 0.015])
    assert corrected == pytest.approx([0.2, 0.04, None, 0.045, 0.045])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_claim_is_false_as_often_as_student_s_t_says():
    gains = np.array([1.0, 2.0, 3.0])
    # t = sqrt(3) * 2 / 1 = 3.4641 with two degrees: p = 0.0371 one-sided.
    assert false_claim_probability(gains) == pytest.approx(0.03709, abs=1e-5)
    theirs = stats.ttest_1samp(gains, 0, alternative="greater").pvalue
    assert false_claim_probability(gains) == pytest.approx(theirs)
    assert false_claim_probability(-gains) == pytest.approx(1 - theirs)


def test_nothing_constant_and_single_differences_have_defined_answers():
    for gains, p, false, detectable in (
        ([], None, None, None),
        ([0.1], 1.0, None, None),
        ([0.0] * 8, 1.0, 0.5, 0.0),
        ([0.1] * 8, 2 / 2**8, 0.0, 0.0),
        ([-0.1] * 8, 2 / 2**8, 1.0, 0.0),
    ):
        values = np.array(gains, float)
        assert wilcoxon_p(values) == (p and pytest.approx(p))
        assert false_claim_probability(values) == false
        assert smallest_detectable(values) == detectable


def test_the_detectable_difference_has_a_power_of_80_percent():
    rng = np.random.default_rng(0)
    for n in (2, 3, 8, 34, 500):
        values = rng.normal(size=n)
        spread = values.std(ddof=1)
        difference = smallest_detectable(values)
        assert difference is not None
        shift = difference / spread * np.sqrt(n)
        critical = stats.t.ppf(0.975, n - 1)
        low, high = stats.chi.ppf([1e-12, 1 - 1e-12], n - 1)

        def power_given(chi, shift=shift, critical=critical, freedom=n - 1):
            bound = critical * chi / np.sqrt(freedom)
            above = stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)
            return stats.chi.pdf(chi, freedom) * above

        assert integrate.quad(power_given, low, high)[0] == pytest.approx(0.8, abs=1e-4)
    # G*Power: 34 pairs show an effect of 0.5 deviations with a power of 0.8.
    values = np.tile([-1.0, 1.0], 17)
    found = smallest_detectable(values)
    assert found == pytest.approx(0.5 * values.std(ddof=1), rel=0.011)
