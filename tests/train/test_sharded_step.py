"""One train step over a mesh of devices equals the step on one device."""

from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from attunet_jax.sharding import batch_shardings, make_mesh, replicated, to_global
from attunet_jax.train.state import draw_state

STEPS = 2


def leaves_of(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    return flatten_dict(tree)  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def run(tiny, host_batch, step_key):
    """Runs `STEPS` steps on a mesh; returns losses and the final state as NumPy."""
    results = {}

    def on(data, spatial):
        if (data, spatial) in results:
            return results[data, spatial]
        _, _, step, begin = tiny()
        mesh = make_mesh(data, spatial)
        everywhere = replicated(mesh)
        with jax.set_mesh(mesh):
            state = draw_state(begin, jax.random.key(0), everywhere)
            batch = to_global(host_batch, mesh)
            jitted = jax.jit(
                step,
                in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
                out_shardings=everywhere,
            )
            losses, norms, statistics = [], [], []
            for _ in range(STEPS):
                state, metrics = jitted(state, batch, step_key)
                losses.append(float(metrics["loss"]))
                norms.append(float(metrics["gradient_norm"]))
                statistics.append(jax.tree.map(np.asarray, state.batch_stats))
        final = jax.tree.map(np.asarray, state)
        results[data, spatial] = (losses, norms, statistics, final)
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


@pytest.mark.parametrize("data, spatial", [(8, 1), (2, 4)])
def test_sharded_step_equals_single_device_step(run, data, spatial):
    losses, norms, statistics, state = run(data, spatial)
    one_losses, one_norms, one_statistics, one_state = run(1, 1)
    np.testing.assert_allclose(losses, one_losses, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(norms, one_norms, rtol=1e-5)
    # Those of the first step: later means hold the biases named in before_a_norm.
    after_one = leaves_of(statistics[0])
    for path, expected in leaves_of(one_statistics[0]).items():
        np.testing.assert_allclose(after_one[path], expected, rtol=1e-5, atol=1e-5)
    last = leaves_of(statistics[-1])
    for path, expected in leaves_of(one_statistics[-1]).items():
        if path[-1] == "var":
            np.testing.assert_allclose(last[path], expected, rtol=1e-5, atol=1e-5)
    # Adam's first moment is 0.1 * gradient + ...: the gradients themselves.
    adam = next(s for s in state.opt_state if hasattr(s, "mu"))
    one_adam = next(s for s in one_state.opt_state if hasattr(s, "mu"))
    moments = leaves_of(adam.mu)
    compared = 0
    for path, expected in leaves_of(one_adam.mu).items():
        if not before_a_norm(path):
            compared += 1
            scale = np.linalg.norm(expected)
            assert np.linalg.norm(moments[path] - expected) <= 1e-5 * scale, path
    assert compared > 50
    params = leaves_of(state.params)
    for path, expected in leaves_of(one_state.params).items():
        if not before_a_norm(path):
            np.testing.assert_allclose(params[path], expected, atol=1e-5, err_msg=path)


def test_steps_change_parameters_and_statistics(run):
    losses, _, _, state = run(1, 1)
    assert losses[0] != losses[1]
    assert int(state.step) == STEPS
    means = [v for k, v in leaves_of(state.batch_stats).items() if k[-1] == "mean"]
    assert all(np.abs(m).max() > 0 for m in means)
