"""The attention gates of a network in; a runner of each of their parts alone, out.

The parts are the operations of `attunet_jax/model/gates.py` on noise of the shapes that
the forward pass of one volume has, all sub-gates together. Alone each writes its result
to memory; in the network some are fused, so their sum is above what the gates cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attunet_jax.ops.conv import conv_1x1x1, conv_2x2x2_stride_2
from attunet_jax.ops.resize import upsample
from launch.benchmark.timing import Runner, timed


def gate_parts(model: Any, shape: tuple[int, int, int]) -> dict[str, Runner]:
    """Part -> seconds a call, over all gated scales of a volume of `shape`.

    `model` is the group of a config whose gates are as in the published code: kernel 2,
    no reduction, an output transform.
    """
    parts: dict[str, list[Callable[[], Any]]] = {}
    dtype = jnp.dtype(model.compute_dtype)
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def noise(*sizes: int) -> jax.Array:
        return jax.random.normal(next(keys), sizes, dtype)

    def add(part: str, function: Callable[..., jax.Array], *arrays: Any) -> None:
        compiled = jax.jit(function).lower(*arrays).compile()
        parts.setdefault(part, []).append(lambda: compiled(*arrays))

    widths = tuple(model.widths)
    for scale in range(2, len(widths)):
        channels = widths[scale - 1]
        deepest = scale == len(widths) - 1
        signal = model.gating_channels if deepest else widths[scale]
        fine = [n // 2 ** (scale - 1) for n in shape]
        coarse = [n // 2 for n in fine]
        x, g = noise(1, *fine, channels), noise(1, *coarse, signal)
        theta, phi = (noise(1, *coarse, channels) for _ in range(2))
        small, alpha = noise(1, *coarse, 1), noise(1, *fine, 1)
        pointwise = noise(1, 1, 1, channels, channels)
        block = noise(2, 2, 2, channels, channels)
        for _ in range(model.sub_gates):
            add("W_x", conv_2x2x2_stride_2, x, block)
            add("W_g", conv_1x1x1, g, noise(1, 1, 1, signal, channels))
            add("sum, psi, sigmoid", _psi, theta, phi, noise(1, 1, 1, channels, 1))
            add("alpha to the grid of x", _finer, small)
            add("alpha x", jnp.multiply, alpha, x)
            add("W and its norm", _pointwise, x, pointwise)
        both = noise(1, *fine, model.sub_gates * channels)
        mixing = noise(1, 1, 1, model.sub_gates * channels, channels)
        add("sub-gates combined", _pointwise, both, mixing)
    return {part: _all(calls) for part, calls in parts.items()}


def _all(calls: list[Callable[[], Any]]) -> Runner:
    return timed(lambda: jax.block_until_ready([call() for call in calls]))


def _psi(theta: jax.Array, phi: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(conv_1x1x1(jax.nn.relu(theta + phi), kernel))


def _finer(alpha: jax.Array) -> jax.Array:
    return upsample(alpha, 2, align_corners=False)


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """With a norm's scale and shift, and ReLU, as they are at prediction."""
    y = conv_1x1x1(x, kernel)
    return jax.nn.relu(y * y.dtype.type(1.5) + y.dtype.type(0.5))
