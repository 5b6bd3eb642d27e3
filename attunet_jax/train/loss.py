"""Logits and integer labels in, the soft Sorensen-Dice loss over classes out."""

import jax
import jax.numpy as jnp


def soft_dice_loss(
    label: jax.Array,
    logits: jax.Array,
    *,
    classes: tuple[int, ...],
    smoothing: float,
    smoothing_inside_factor: bool,
    include_background: bool,
    averaged_over: int,
) -> jax.Array:
    """1 - mean over samples and classes of the soft Dice score.

    `label [B, D, H, W]` integer, `logits [B, D, H, W, K]`; p = softmax(logits), t the
    one-hot label, s the smoothing, sums over space:

        score = (2 sum(p t) + s) / (sum(p) + sum(t) + s)
        score = 2 (sum(p t) + s) / (sum(p) + sum(t) + s)   with smoothing_inside_factor

    The second is the published code's (layers/loss.py): an absent class that is not
    predicted scores 2 there, so that the loss can be negative. `classes` are the
    output nodes that take part: the others are left out of the softmax, of the mean
    and of the gradient (fine-tuning on a subset of organs). The sum over classes is
    divided by `averaged_over`: their number; in the published code, which fine-tunes
    two of four outputs, the number of outputs, so that the loss cannot reach 0.
    """
    chosen = jnp.asarray(classes)
    p = jax.nn.softmax(logits.astype(jnp.float32)[..., chosen], axis=-1)
    t = (label[..., None] == chosen).astype(jnp.float32)
    space = (1, 2, 3)
    both = jnp.sum(p * t, space)
    either = jnp.sum(p, space) + jnp.sum(t, space) + smoothing
    if smoothing_inside_factor:
        score = 2 * (both + smoothing) / either
    else:
        score = (2 * both + smoothing) / either
    if not include_background:
        score = score[:, 1:]
    return 1 - jnp.mean(score.sum(1)) / averaged_over
