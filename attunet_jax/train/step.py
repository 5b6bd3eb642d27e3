"""One update and one held-out measurement: pure functions of (state, batch[, key])."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from attunet_jax.train.state import TrainState

Batch = dict[str, jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (label, logits) -> scalar


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    network: Any,
    optimizer: optax.GradientTransformation,
    crops: Callable[[Batch, jax.Array], Batch],
    loss: Loss,
    auxiliary_weight: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments, goes forward and back, updates.

    `key` is the run's; the step's own is folded from it, so that a resumed run draws
    the same. Metrics stay on the device: loss and norm of the gradient.
    """
    seen = crops(batch, jax.random.fold_in(key, state.step))

    def objective(params: Any) -> tuple[jax.Array, Any]:
        logits, updates = network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            seen["image"],
            train=True,
            mutable=["batch_stats", "auxiliary"],
        )
        value = loss(seen["label"], logits)
        for each in jax.tree.leaves(updates.get("auxiliary", {})):
            value = value + auxiliary_weight * loss(seen["label"], each)
        return value, updates["batch_stats"]

    (value, batch_stats), gradient = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, change),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, {"loss": value, "gradient_norm": optax.tree.norm(gradient)}


def count_step(
    state: TrainState,
    batch: Batch,
    *,
    network: Any,
    crops: Callable[[Batch], Batch],
    classes: tuple[int, ...],
) -> jax.Array:
    """Voxels of each case and class: int32 `[B, K, 3]` = (both, truth, prediction).

    What the Dice of held-out crops is made of, with BatchNorm's running statistics.
    The prediction is the best of `classes`, the output nodes that take part.
    """
    seen = crops(batch)
    logits = network.apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        seen["image"],
        train=False,
    )
    chosen = jnp.asarray(classes)
    prediction = jnp.argmax(logits[..., chosen], -1)
    prediction = prediction[..., None] == jnp.arange(len(classes))
    truth = seen["label"][..., None] == chosen
    space = (1, 2, 3)
    return jnp.stack(
        [x.sum(space) for x in (truth & prediction, truth, prediction)], axis=-1
    )
