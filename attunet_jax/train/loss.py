"""The soft Sorensen-Dice loss over classes."""

import jax
import jax.numpy as jnp


def soft_dice_loss(
    label: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None = None,
    *,
    classes: tuple[int, ...] | None = None,
    smoothing: float = 0.01,
    smoothing_inside_factor: bool = False,
    include_background: bool = True,
    averaged_over: int | None = None,
) -> jax.Array:
    """Returns 1 - mean over samples and classes of the soft Dice score.

    `label [B, D, H, W]` integer, `logits [B, D, H, W, K]`; p = softmax(logits), t the
    one-hot label, s the smoothing, sums over space:

        score = (2 sum(p t) + s) / (sum(p) + sum(t) + s)
        score = 2 (sum(p t) + s) / (sum(p) + sum(t) + s)   with smoothing_inside_factor

    The second is the published code's (layers/loss.py): an absent class that is not
    predicted scores 2 there, so that the loss can be negative. Where `mask
    [B, D, H, W]` bool is False, a voxel counts in no sum. `classes` are the
    output nodes that take part (None: all): the others are left out of the softmax, of
    the mean and of the gradient (fine-tuning on a subset of organs). The sum over
    classes is divided by `averaged_over` (None: the number of scores); in the published
    code, which fine-tunes two of four outputs, it is the number of outputs, so that the
    loss cannot reach 0.
    """
    outputs = logits.shape[-1]
    classes = tuple(range(outputs)) if classes is None else tuple(classes)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if classes != tuple(range(outputs)):
        logits = logits[..., jnp.asarray(classes)]
    p = jax.nn.softmax(logits, axis=-1)
    t = (label[..., None] == jnp.asarray(classes)).astype(p.dtype)
    if mask is not None:
        p, t = (jnp.where(mask[..., None], x, 0) for x in (p, t))
    space = (1, 2, 3)
    both = jnp.sum(p * t, space)
    either = jnp.sum(p, space) + jnp.sum(t, space) + smoothing
    if smoothing_inside_factor:
        score = 2 * (both + smoothing) / either
    else:
        score = (2 * both + smoothing) / either
    if not include_background:
        score = score[:, 1:]
    count = score.shape[1] if averaged_over is None else averaged_over
    return 1 - jnp.mean(score.sum(1)) / count
