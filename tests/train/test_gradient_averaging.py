"""The paper's "gradient averaging": micro-batches against the one large batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, create_state
from attunet_jax.train.step import train_step

BATCHES = 4


class WithoutBatchStatistics:
    """The real network with BatchNorm off: it uses the running statistics."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def apply(self, variables: Any, image: Any, train: bool, mutable: Any) -> Any:
        logits = self.network.apply(variables, image, train=False)
        return logits, {"batch_stats": variables["batch_stats"]}


def test_four_micro_batches_make_the_update_of_the_large_batch(tiny, host_batch):
    network, _, step, _ = tiny(widths=(4, 6), sub_gates=0)
    key = jax.random.key(0)
    quick: Any = {"xla_backend_optimization_level": 0}

    def update(grad_accum_steps: int) -> tuple[TrainState, Any]:
        optimizer = make_optimizer(
            name="sgd",
            learning_rate=1.0,
            l2=1e-6,
            decay_factor=0.5,
            decay_every_steps=100,
            grad_accum_steps=grad_accum_steps,
        )
        begin = jax.jit(lambda key: create_state(key, network, optimizer))
        state = begin.lower(key).compile(compiler_options=quick)(key)
        first = state.params

        @jax.jit
        def one(state: TrainState, batch: Any) -> Any:
            return train_step(
                state,
                batch,
                key,
                network=WithoutBatchStatistics(network),
                optimizer=optimizer,
                crops=cut,
                loss=step.keywords["loss"],
                auxiliary_weight=0.5,
            )

        rows = len(host_batch["label"]) // grad_accum_steps
        for i in range(grad_accum_steps):
            part = {k: v[i * rows : (i + 1) * rows] for k, v in host_batch.items()}
            assert i == 0 or all(
                jax.tree.leaves(jax.tree.map(np.array_equal, state.params, first))
            )
            state, _ = one(state, part)
        return state, first

    def cut(batch: Any, key: Any) -> Any:
        image = batch["image_hu"][:, :, :8, :8, None].astype(jnp.float32) / 200
        return {"image": image, "label": batch["label"][:, :, :8, :8]}

    (large, first), (small, _) = update(1), update(BATCHES)
    begun: Any = flatten_dict(first)
    small_params: Any = flatten_dict(small.params)
    for path, value in flatten_dict(large.params).items():
        moved = np.asarray(value - begun[path])
        apart = np.linalg.norm(np.asarray(small_params[path] - value))
        assert apart <= 1e-5 * np.linalg.norm(moved) + 1e-7, path
