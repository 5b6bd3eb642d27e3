"""One train step over a mesh of devices equals the step on one device."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
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
# Optimised machine code takes longer to make than these steps to run.
QUICK: Any = {"xla_backend_optimization_level": 0}


def leaves_of(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    return flatten_dict(tree)  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def run(tiny, deep_host_batch, step_key):
    """Runs steps on a mesh in a type; returns metrics and states of each as NumPy."""
    results = {}
    network, _, step, create = tiny(crop_shape=(32, 8, 8))
    one = make_mesh(1, 1)
    with jax.set_mesh(one):
        begun = init_state(create, jax.random.key(0), replicated(one))
    begun = jax.tree.map(np.asarray, begun)

    def on(data: int, spatial: int, dtype: Any, steps: int = STEPS):
        if (data, spatial, dtype) in results:
            return results[data, spatial, dtype]
        mesh = make_mesh(data, spatial)
        everywhere = replicated(mesh)
        in_dtype = partial(
            step.func, **step.keywords | {"network": network.clone(dtype=dtype)}
        )
        with jax.enable_x64(dtype == jnp.float64), jax.set_mesh(mesh):
            state = jax.tree.map(
                lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, begun
            )
            state = jax.device_put(state, everywhere)
            batch = to_global(deep_host_batch, mesh)
            lowered = jax.jit(
                in_dtype,
                in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
                out_shardings=everywhere,
            ).lower(state, batch, step_key)
            compiled = lowered.compile(QUICK)
            metrics, states = [], []
            for _ in range(steps):
                state, values = compiled(state, batch, step_key)
                metrics.append({name: float(x) for name, x in values.items()})
                states.append(jax.tree.map(np.asarray, state))
        results[data, spatial, dtype] = metrics, states
        return results[data, spatial, dtype]

    return on


@pytest.mark.parametrize(
    "data, spatial",
    [
        (2, 2),
        pytest.param(2, 4, marks=pytest.mark.cluster),  # a minute of compiling each
        pytest.param(1, 8, marks=pytest.mark.cluster),
    ],
)
def test_sharded_step_equals_single_device_step(run, data, spatial):
    """In float64 the order of the sums shows in the last digits only."""
    metrics, states = run(data, spatial, jnp.float64)
    one_metrics, one_states = run(1, 1, jnp.float64)
    for got, expected in zip(metrics, one_metrics, strict=True):
        assert got == pytest.approx(expected, rel=1e-9)
    compared = 0
    for state, one_state in zip(states, one_states, strict=True):
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(one_state), strict=True)
        for got, expected in pairs:
            compared += got.dtype == np.float64
            np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)
    assert compared > 3 * 200


def gradients_are_zero(path: tuple[str, ...]) -> bool:
    """Biases that a BatchNorm subtracts again: their float32 gradients are rounding.

    Those of convolutions in front of a norm, and of the sub-gates' own norms, which
    reach the norm after "combine" through a 1x1x1 convolution only.
    """
    *_, layer, name = path
    in_sub_gate = layer == "norm" and "sub_gate" in path[-3]
    return name == "bias" and (
        layer in ("conv_1", "conv_2", "conv", "W") or in_sub_gate
    )


@pytest.mark.cluster
def test_a_sharded_step_in_float32_equals_one_device_up_to_rounding(run):
    """Sums of some 2**14 products round by 2**-24 * 2**7 where errors add at random.

    2**-14 leaves eight times that. A voxel close to 0 may be on the other side of a
    ReLU, which moves a gradient by more: hence 2**-10 of an array's norm for gradients.
    """
    (metrics,), (state,) = run(2, 4, jnp.float32, steps=1)
    (one_metrics,), (one_state,) = run(1, 1, jnp.float32, steps=1)
    assert metrics["loss"] == pytest.approx(one_metrics["loss"], rel=2**-14)
    norm = one_metrics["gradient_norm"]
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=2**-10)
    stats = leaves_of(state.batch_stats)
    for path, expected in leaves_of(one_state.batch_stats).items():
        apart = np.linalg.norm(stats[path] - expected)
        assert apart <= 2**-14 * max(np.linalg.norm(expected), 1), path
    # Adam's first moment after a step is 0.1 * gradient.
    adam, one_adam = (
        next(s for s in each.opt_state if hasattr(s, "mu"))
        for each in (state, one_state)
    )
    moments, compared = leaves_of(adam.mu), 0
    for path, expected in leaves_of(one_adam.mu).items():
        if not gradients_are_zero(path):
            compared += 1
            apart = np.linalg.norm(moments[path] - expected)
            assert apart <= 2**-10 * np.linalg.norm(expected), path
    assert compared > 50


def test_steps_change_parameters_and_statistics(run):
    metrics, states = run(1, 1, jnp.float64)
    assert metrics[0]["loss"] != metrics[1]["loss"]
    assert int(states[-1].step) == STEPS
    stats = leaves_of(states[-1].batch_stats)
    assert all(np.abs(v).max() > 0 for k, v in stats.items() if k[-1] == "mean")
