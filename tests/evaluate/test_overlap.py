"""Overlap scores of masks that can be counted by hand."""

import numpy as np
import pytest

from attunet_jax.evaluate.overlap import overlap


def mask(*bits: int) -> np.ndarray:
    return np.array(bits, bool).reshape(1, 1, -1)


def test_ratios_of_two_found_one_false_three_missed():
    counts = overlap(mask(1, 1, 1, 1, 1, 0, 0), mask(1, 1, 0, 0, 0, 1, 0))
    assert (counts.tp, counts.fp, counts.fn) == (2, 1, 3)
    assert (counts.truth_vox, counts.prediction_vox) == (5, 3)
    assert counts.dice == pytest.approx(4 / 8, abs=1e-15)
    assert counts.iou == pytest.approx(2 / 6, abs=1e-15)
    assert counts.precision == pytest.approx(2 / 3, abs=1e-15)
    assert counts.recall == pytest.approx(2 / 5, abs=1e-15)


def test_an_organ_missed_altogether_scores_zero():
    counts = overlap(mask(1, 1, 0), mask(0, 0, 0))
    assert (counts.dice, counts.iou, counts.precision, counts.recall) == (0, 0, 0, 0)


def test_an_organ_made_up_scores_zero_and_has_no_recall():
    counts = overlap(mask(0, 0, 0), mask(1, 0, 0))
    assert (counts.dice, counts.iou, counts.precision) == (0, 0, 0)
    assert counts.recall is None


def test_an_organ_in_neither_mask_says_nothing():
    counts = overlap(mask(0, 0), mask(0, 0))
    assert [counts.dice, counts.iou, counts.precision, counts.recall] == [None] * 4


def test_masks_of_other_shape_or_type_are_refused():
    with pytest.raises(ValueError, match="truth is"):
        overlap(mask(1, 0), mask(1))
    with pytest.raises(ValueError, match="bool"):
        overlap(mask(1, 0), mask(1, 0).astype(np.uint8))
