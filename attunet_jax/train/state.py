"""The training state, as data only, and how it is initialised."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct

from attunet_jax.model import AttentionUNet3D


class Network(Protocol):
    """What training asks of a network: a Flax module, or a stand-in in a test."""

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...


@struct.dataclass
class TrainState:
    """A pytree of arrays; network and optimizer, which are functions, are not in it."""

    step: jax.Array  # int32, batches seen
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    key: jax.Array, network: AttentionUNet3D, optimizer: optax.GradientTransformation
) -> TrainState:
    """Random parameters and an empty optimizer; pure, for `jit` and `eval_shape`."""
    size = 2 ** (len(network.widths) - 1)
    image = jnp.zeros((1, size, size, size, 1))
    variables = network.init(key, image, train=True)
    return state_of(variables, optimizer)


def state_of(variables: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step with these parameters and statistics."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


def init_state(
    create: Callable[[jax.Array], TrainState],
    key: jax.Array,
    sharding: jax.sharding.Sharding,
) -> TrainState:
    """Returns `create(key)` laid out by `sharding`; no device holds more than its part.

    Compiled without optimisation: it is hundreds of random draws that run once, and
    optimising them takes far longer than running them.
    """
    options: Any = {"xla_backend_optimization_level": 0}
    lowered = jax.jit(create, out_shardings=sharding).lower(key)
    return lowered.compile(compiler_options=options)(key)


@jax.jit
def copy_of(state: TrainState) -> TrainState:
    """A copy in other memory, made by one program instead of one for each shape."""
    return jax.tree.map(jnp.copy, state)


def parameter_count(params: Any) -> int:
    """Number of trainable values, without BatchNorm's running statistics."""
    return sum(x.size for x in jax.tree.leaves(params))
