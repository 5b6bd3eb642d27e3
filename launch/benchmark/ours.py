"""A config and a data set in; our forward pass and train step, ready to run, out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from attunet_jax.data.dataset import Dataset
from attunet_jax.distributed.mesh import make_mesh, replicated, to_global
from attunet_jax.predict.predictor import Predictor
from attunet_jax.train.experiment import compile_step, make_plan
from attunet_jax.train.setup import stream
from attunet_jax.train.state import copy_of, draw_state, initial_state, parameter_count
from attunet_jax.train.trained import FinishedRun
from launch.benchmark.machine import free_bytes


class NotEnoughMemory(Exception):
    """What needs how much, in one line: this figure is skipped, the rest still runs."""


class Ours:
    """One network in one compute type, with random parameters."""

    def __init__(self, config: Any, dataset: Dataset, device: Any) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        self.mesh = make_mesh(1, 1)
        self.plan = make_plan(config, dataset, self.mesh.size)
        self.state = draw_state(
            lambda key: initial_state(key, self.plan.network, self.plan.optimizer),
            jax.random.key(config.seed),
            replicated(self.mesh),
        )
        self.parameters = parameter_count(self.state.params)
        self.class_count = len(config.classes)

    def batches(self) -> Any:
        """Host batches as training reads them, without end; to be closed."""
        return stream(self.config, self.dataset, self.plan.train_ids, self.mesh, 0)

    def forward(self) -> Callable[[], object]:
        """One volume, batch 1, to logits, with BatchNorm's running statistics."""
        network = self.plan.network
        variables = {
            "params": self.state.params,
            "batch_stats": self.state.batch_stats,
        }
        # Noise: zeros cost a GPU less power, and so less time, than an image does.
        shape = (1, *self.config.data.crop_shape, 1)
        image = jax.random.normal(jax.random.key(1), shape, jnp.float32)
        apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
        compiled = self._fitting(apply.lower(variables, image).compile())
        return lambda: jax.block_until_ready(compiled(variables, image))

    def train_step(self) -> Callable[[], object]:
        """The step of `train/loop.py`: augmentation, forward, backward, update."""
        batches = self.batches()
        batch = to_global(next(batches), self.mesh)
        batches.close()
        key = jax.random.key(self.config.seed)
        state = copy_of(self.state)  # the step eats its state
        with jax.set_mesh(self.mesh):
            step = self._fitting(compile_step(self.plan, self.mesh, state, batch, key))

        def call() -> None:
            nonlocal state
            state, metrics = step(state, batch, key)
            jax.block_until_ready((state, metrics))

        return call

    def predictor(self) -> Predictor:
        """What a finished run of this config would predict with."""
        return Predictor(
            FinishedRun(self.plan.network, self.state, self.plan.run, Path())
        )

    def _fitting(self, compiled: Any) -> Any:
        """The same, if the device has the memory that it needs."""
        memory = compiled.memory_analysis()
        free = free_bytes(self.device)
        if memory and free is not None:
            needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
            needed -= memory.alias_size_in_bytes
            if needed > free:
                raise NotEnoughMemory(
                    f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
                )
        return compiled


def out_of_memory(error: Exception) -> bool:
    """Whether an exception of the compiler or runtime says that memory ran out."""
    return isinstance(error, MemoryError | NotEnoughMemory) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and "RESOURCE_EXHAUSTED" in str(error)
    )
