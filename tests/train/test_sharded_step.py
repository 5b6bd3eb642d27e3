"""One train step over a mesh of devices equals the step on one device."""

from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from attunet_jax.distributed.mesh import (
    batch_shardings,
    make_mesh,
    replicated,
    to_global,
)
from attunet_jax.train.state import init_state

STEPS = 3


def leaves_of(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    return flatten_dict(tree)  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def run(tiny, deep_host_batch, step_key):
    """Runs `STEPS` steps on a mesh; returns figures and states of each as NumPy."""
    results = {}

    def on(data, spatial):
        if (data, spatial) in results:
            return results[data, spatial]
        _, _, step, begin = tiny(crop_shape=(32, 8, 8))
        mesh = make_mesh(data, spatial)
        everywhere = replicated(mesh)
        with jax.set_mesh(mesh):
            state = init_state(begin, jax.random.key(0), everywhere)
            batch = to_global(deep_host_batch, mesh)
            lowered = jax.jit(
                step,
                in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
                out_shardings=everywhere,
            ).lower(state, batch, step_key)
            # Optimised machine code takes longer to make than these steps to run.
            quick: Any = {"xla_backend_optimization_level": 0}
            compiled = lowered.compile(quick)
            losses, norms, states = [], [], []
            for _ in range(STEPS):
                state, metrics = compiled(state, batch, step_key)
                losses.append(float(metrics["loss"]))
                norms.append(float(metrics["gradient_norm"]))
                states.append(jax.tree.map(np.asarray, state))
        results[data, spatial] = (losses, norms, states)
        return results[data, spatial]

    return on


def before_a_norm(path: tuple[str, ...]) -> bool:
    """Biases whose true gradient is zero: a BatchNorm subtracts them again.

    Those of convolutions in front of a norm, and of the sub-gates' own norms, which
    reach the norm after "combine" through a 1x1x1 convolution only.

    Adam turns the rounding noise of such a gradient into whole steps, so these are
    left out of comparisons between reduction orders.
    """
    *_, layer, name = path
    in_sub_gate = layer == "norm" and "sub_gate" in path[-3]
    return name == "bias" and (
        layer in ("conv_1", "conv_2", "conv", "W") or in_sub_gate
    )


@pytest.mark.parametrize("data, spatial", [(8, 1), (2, 4), (1, 8)])
def test_sharded_step_equals_single_device_step(run, data, spatial):
    losses, norms, states = run(data, spatial)
    one_losses, one_norms, one_states = run(1, 1)
    np.testing.assert_allclose(losses, one_losses, rtol=1e-6, atol=1e-6)
    # Of two steps: parameters that differ in the last bits may by then put a voxel on
    # the other side of a ReLU.
    np.testing.assert_allclose(norms[:2], one_norms[:2], rtol=1e-5)
    # Those of the first step: later means hold the biases named in before_a_norm.
    after_one = leaves_of(states[0].batch_stats)
    for path, expected in leaves_of(one_states[0].batch_stats).items():
        np.testing.assert_allclose(after_one[path], expected, rtol=1e-5, atol=1e-5)
    last = leaves_of(states[-1].batch_stats)
    for path, expected in leaves_of(one_states[-1].batch_stats).items():
        if path[-1] == "var":
            np.testing.assert_allclose(last[path], expected, rtol=1e-5, atol=1e-5)
    # Adam's first moment is 0.1 * gradient + ...: the gradients themselves.
    adam = next(s for s in states[1].opt_state if hasattr(s, "mu"))
    one_adam = next(s for s in one_states[1].opt_state if hasattr(s, "mu"))
    moments = leaves_of(adam.mu)
    compared = 0
    for path, expected in leaves_of(one_adam.mu).items():
        if not before_a_norm(path):
            compared += 1
            scale = np.linalg.norm(expected)
            assert np.linalg.norm(moments[path] - expected) <= 1e-5 * scale, path
    assert compared > 50
    params = leaves_of(states[-1].params)
    for path, expected in leaves_of(one_states[-1].params).items():
        if not before_a_norm(path):
            np.testing.assert_allclose(params[path], expected, atol=1e-5, err_msg=path)


def test_steps_change_parameters_and_statistics(run):
    losses, _, states = run(1, 1)
    state = states[-1]
    assert losses[0] != losses[1]
    assert int(state.step) == STEPS
    means = [v for k, v in leaves_of(state.batch_stats).items() if k[-1] == "mean"]
    assert all(np.abs(m).max() > 0 for m in means)
