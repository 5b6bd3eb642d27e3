"""What training carries from step to step, as data only, and how it begins."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """A pytree of arrays; functions (network, optimizer) travel apart from it."""

    step: jax.Array  # int32, batches seen
    params: Any
    batch_stats: Any
    opt_state: Any


def initial_state(
    key: jax.Array, network: Any, optimizer: optax.GradientTransformation
) -> TrainState:
    """Random parameters and an empty optimizer; pure, to be jitted or `eval_shape`d."""
    size = 2 ** (len(network.widths) - 1)
    image = jnp.zeros((1, size, size, size, 1))
    variables = network.init(key, image, train=True)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
    )


def draw_state(
    begin: Callable[[jax.Array], TrainState],
    key: jax.Array,
    sharding: jax.sharding.Sharding,
) -> TrainState:
    """`begin(key)` laid out as `sharding` says, whole on no device.

    Hundreds of random draws that run once: optimising them takes ten times as long as
    not (3-scale network, 2 CPU cores, 2026-11-24: 30 s against 3 s).
    """
    quick: Any = {"xla_backend_optimization_level": 0}
    drawing = jax.jit(begin, out_shardings=sharding).lower(key)
    return drawing.compile(compiler_options=quick)(key)


@jax.jit
def copy_of(state: TrainState) -> TrainState:
    """Arrays of their own; one program, not one for each shape."""
    return jax.tree.map(jnp.copy, state)


def parameter_count(params: Any) -> int:
    """Trainable numbers; BatchNorm's running statistics are not among them."""
    return sum(x.size for x in jax.tree.leaves(params))
