"""One update and one evaluation: pure functions of (state, batch[, key])."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from attunet_jax.train.state import Network, TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# (label, logits, mask) -> scalar; mask is None where every voxel counts.
Loss = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


class TrainStep(Protocol):
    """`train_step` with its settings bound."""

    def __call__(
        self, state: TrainState, batch: Batch, key: jax.Array, /
    ) -> tuple[TrainState, Metrics]: ...


class EvalStep(Protocol):
    """`eval_step` with its settings bound."""

    def __call__(self, state: TrainState, batch: Batch, /) -> jax.Array: ...


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    network: Network,
    optimizer: optax.GradientTransformation,
    crops: Callable[[Batch, jax.Array], Batch],
    loss: Loss,
    auxiliary_weight: float,
) -> tuple[TrainState, Metrics]:
    """Augments the batch, computes loss and gradient, and updates the state.

    `key` is the run's; the step's own is folded from it, so that a resumed run draws
    the same. Returns the new state and the metrics "loss" and "gradient_norm", as
    arrays on the device. The scopes only name operations, for profiles and
    `launch.compile_for`.
    """
    with jax.named_scope("augmentation"):
        seen = crops(batch, jax.random.fold_in(key, state.step))

    def objective(params: Any) -> tuple[jax.Array, Any]:
        logits, updates = network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            seen["image"],
            train=True,
            mutable=["batch_stats", "auxiliary"],
        )
        with jax.named_scope("loss"):
            value = loss(seen["label"], logits, seen.get("mask"))
            for each in jax.tree.leaves(updates.get("auxiliary", {})):
                value = value + auxiliary_weight * loss(
                    seen["label"], each, seen.get("mask")
                )
        return value, updates["batch_stats"]

    (value, batch_stats), gradient = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    with jax.named_scope("optimizer"):
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, change),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        norm = optax.tree.norm(gradient)
    return state, {"loss": value, "gradient_norm": norm}


def eval_step(
    state: TrainState,
    batch: Batch,
    *,
    network: Network,
    crops: Callable[[Batch], Batch],
    classes: tuple[int, ...],
) -> jax.Array:
    """Counts voxels of each case and class: int32 `[B, K, 3]`.

    The last axis is (in both, in the truth, in the prediction), from which the Dice
    score follows. BatchNorm uses its running statistics. The prediction is the best
    of `classes`, the output nodes that take part. Voxels outside `mask`, where the
    batch has one, are not counted.
    """
    seen = crops(batch)
    logits = network.apply(state.variables, seen["image"], train=False)
    chosen = jnp.asarray(classes)
    prediction = jnp.argmax(logits[..., chosen], -1)
    prediction = prediction[..., None] == jnp.arange(len(classes))
    truth = seen["label"][..., None] == chosen
    if "mask" in seen:
        truth, prediction = (x & seen["mask"][..., None] for x in (truth, prediction))
    space = (1, 2, 3)
    return jnp.stack(
        [x.sum(space) for x in (truth & prediction, truth, prediction)], axis=-1
    )
