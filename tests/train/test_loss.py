"""The soft Dice loss against sums written out by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.train.loss import soft_dice_loss

STATIC = (
    "classes",
    "smoothing",
    "smoothing_inside_factor",
    "include_background",
    "averaged_over",
)
compiled = jax.jit(soft_dice_loss, static_argnames=STATIC)

# Four voxels of two classes; p(1) = 1/4, 3/4, 1/2, 1/4.
LABEL = np.array([0, 1, 1, 0]).reshape(1, 1, 1, 4)
LOGITS = np.array(
    [[np.log(3), 0], [0, np.log(3)], [0, 0], [np.log(3), 0]], np.float32
).reshape(1, 1, 1, 4, 2)


def loss(label: Any, logits: Any, **changes: Any) -> float:
    usual: dict[str, Any] = {
        "classes": (0, 1),
        "smoothing": 0.5,
        "smoothing_inside_factor": False,
        "include_background": True,
        "averaged_over": 2,
    }
    return float(compiled(label, logits, **(usual | changes)))


# Sums: class 0: pt 3/2, p 9/4, t 2; class 1: pt 5/4, p 7/4, t 2.
OUTSIDE = [(3 + 0.5) / (4.25 + 0.5), (2.5 + 0.5) / (3.75 + 0.5)]
INSIDE = [(3 + 1.0) / (4.25 + 0.5), (2.5 + 1.0) / (3.75 + 0.5)]


@pytest.mark.parametrize("inside, scores", [(False, OUTSIDE), (True, INSIDE)])
def test_both_smoothing_rules_by_hand(inside, scores):
    got = loss(LABEL, LOGITS, smoothing_inside_factor=inside)
    assert got == pytest.approx(1 - sum(scores) / 2, rel=1e-6)


def test_without_background_only_the_other_classes_count():
    got = loss(LABEL, LOGITS, include_background=False, averaged_over=1)
    assert got == pytest.approx(1 - OUTSIDE[1], rel=1e-6)


def test_voxels_outside_the_mask_are_as_if_they_were_not_there():
    """Equal to the loss of the other voxels, whatever stands there; no gradient."""
    rng = np.random.default_rng(3)
    mask = rng.random((2, 2, 3, 4)) < 0.6
    mask[1] = mask[0]  # as many in both, so that the others are an array again
    label = rng.integers(0, 3, mask.shape)
    logits = rng.normal(size=(*mask.shape, 3)).astype(np.float32)
    words: dict[str, Any] = {"classes": (0, 1, 2), "averaged_over": 3}
    kept = loss(
        label[mask].reshape(2, 1, 1, -1), logits[mask].reshape(2, 1, 1, -1, 3), **words
    )
    assert loss(label, logits, **words) != pytest.approx(kept, rel=1e-3)
    for value in (0, 2, 255):
        there = np.where(mask, label, value)
        bent = np.where(mask[..., None], logits, rng.normal(0, 9, logits.shape))
        assert loss(there, bent, mask=mask, **words) == pytest.approx(kept, rel=1e-6)
    usual = {"smoothing": 0.5, **words}
    gradient = jax.grad(lambda x: compiled(label, x, mask=mask, **usual))(logits)
    assert (np.asarray(gradient)[~mask] == 0).all()
    assert (np.asarray(gradient)[mask] != 0).all()
    nothing = np.zeros_like(mask)
    assert loss(label, logits, mask=nothing, **words) == pytest.approx(0, abs=1e-6)


def test_the_mean_is_over_samples_not_over_their_pooled_voxels():
    label = np.concatenate([LABEL, 1 - LABEL])
    logits = np.concatenate([LOGITS, LOGITS])
    # Second sample, labels swapped: class 0: pt 1/4 + 1/2; class 1: pt 1/4 + 1/4.
    second = [(1.5 + 0.5) / (4.25 + 0.5), (1.0 + 0.5) / (3.75 + 0.5)]
    got = loss(label, logits)
    assert got == pytest.approx(1 - (sum(OUTSIDE) + sum(second)) / 4, rel=1e-6)


def test_a_sum_averaged_over_more_outputs_than_classes_cannot_reach_0():
    got = loss(LABEL, LOGITS, averaged_over=4)
    assert got == pytest.approx(1 - sum(OUTSIDE) / 4, rel=1e-6)


def certain(label: np.ndarray, count: int) -> np.ndarray:
    """Logits of which the softmax is exactly one-hot."""
    return np.where(label[..., None] == np.arange(count), 500.0, -500.0).astype("f")


@pytest.mark.parametrize("inside, score", [(False, 1.0), (True, 2.0)])
def test_a_class_that_is_neither_there_nor_predicted_scores_1_or_2(inside, score):
    empty = np.zeros((1, 10, 10, 10), int)
    got = loss(
        empty,
        certain(empty, 2),
        smoothing=0.01,
        smoothing_inside_factor=inside,
        include_background=False,
        averaged_over=1,
    )
    assert got == pytest.approx(1 - score, abs=1e-6)


def test_the_published_loss_of_an_empty_foreground_is_minus_one_half():
    empty = np.zeros((1, 10, 10, 10), int)
    published = partial(loss, smoothing=0.01, smoothing_inside_factor=True)
    assert published(empty, certain(empty, 2)) == pytest.approx(-0.50, abs=1e-4)
    # and with 0.1 % of foreground predicted everywhere +0.49
    faint = np.zeros((1, 10, 10, 10, 2), np.float32)
    faint[..., 1] = np.log(0.001 / 0.999)
    assert published(empty, faint) == pytest.approx(0.49, abs=1e-3)


def test_a_perfect_prediction_loses_nothing_and_the_opposite_everything():
    perfect = loss(LABEL, certain(LABEL, 2))
    assert perfect == pytest.approx(0, abs=1e-6)
    opposite = loss(LABEL, certain(1 - LABEL, 2), smoothing=0.0)
    assert opposite == pytest.approx(1, abs=1e-6)


def test_a_subset_of_classes_is_a_loss_of_these_logits_alone():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (2, 2, 3, 4))
    logits = rng.normal(size=(2, 2, 3, 4, 4)).astype(np.float32)
    # Voxels of the classes left out belong to neither of the two.
    two = np.select([label == 0, label == 2], [0, 1], 9)
    assert loss(label, logits, classes=(0, 2)) == pytest.approx(
        loss(two, logits[..., [0, 2]]), rel=1e-6
    )


def test_logits_of_other_classes_get_a_gradient_of_exactly_zero():
    rng = np.random.default_rng(1)
    label = jnp.asarray(rng.integers(0, 4, (2, 2, 3, 4)))
    logits = rng.normal(size=(2, 2, 3, 4, 4)).astype(np.float32)
    gradient = jax.jit(
        jax.grad(
            lambda x: soft_dice_loss(
                label,
                x,
                classes=(0, 2),
                smoothing=0.01,
                smoothing_inside_factor=True,
                include_background=True,
                averaged_over=4,
            )
        )
    )(logits)
    assert (np.asarray(gradient)[..., [1, 3]] == 0).all()
    assert (np.asarray(gradient)[..., [0, 2]] != 0).all()


def test_the_gradient_is_the_slope_of_the_formula_in_float64():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 3, (2, 2, 2, 3))
    logits = rng.normal(size=(2, 2, 2, 3, 3)).astype(np.float32)
    direction = rng.normal(size=logits.shape)

    def in_numpy(x):
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        t = label[..., None] == np.arange(3)
        both, either = (p * t).sum((1, 2, 3)), (p + t).sum((1, 2, 3))
        return 1 - ((2 * both + 0.01) / (either + 0.01)).mean()

    step = 1e-5
    expected = (
        in_numpy(logits + step * direction) - in_numpy(logits - step * direction)
    ) / (2 * step)
    gradient = jax.jit(
        jax.grad(
            lambda x: soft_dice_loss(
                jnp.asarray(label),
                x,
                classes=(0, 1, 2),
                smoothing=0.01,
                smoothing_inside_factor=False,
                include_background=True,
                averaged_over=3,
            )
        )
    )(logits)
    assert (np.asarray(gradient) * direction).sum() == pytest.approx(expected, rel=1e-4)


def test_bfloat16_logits_are_summed_in_float32():
    label = np.zeros((1, 16, 16, 16), int)
    logits = jnp.zeros((1, 16, 16, 16, 2), jnp.bfloat16)
    got = compiled(
        label,
        logits,
        classes=(0, 1),
        smoothing=0.0,
        smoothing_inside_factor=False,
        include_background=True,
        averaged_over=2,
    )
    # Class 0: 2 (n / 2) / (n / 2 + n) = 2 / 3; class 1: 0.
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(1 - (2 / 3) / 2, rel=1e-6)
