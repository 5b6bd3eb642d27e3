"""Attention gates: equations 1 to 3, what they let through, and how they begin."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import random_variables, sigmoid

from attunet_jax.model.gates import AttentionGate, GateSettings, MultiGate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 4, 8, 3)).astype(np.float32)
G = RNG.normal(size=(2, 2, 2, 4, 5)).astype(np.float32)


def settings(
    vector: bool = False, pass_through: bool = True, **changes: Any
) -> GateSettings:
    return GateSettings(
        coefficients="vector" if vector else "scalar",
        initialisation="pass_through" if pass_through else "kaiming",
        **changes,
    )


def gate_of(**changes: Any) -> Any:
    return AttentionGate(settings(**changes))


def shapes(module: Any, g: Any = G) -> Any:
    return jax.eval_shape(
        lambda key: module.init(key, X, g, train=False), jax.random.key(0)
    )


def variables_of(module: Any, g: Any = G) -> dict[str, Any]:
    drawn = random_variables({"batch_stats": {}} | shapes(module, g), seed=1)
    return jax.tree.map(lambda v: v.astype(np.float32), drawn)


def apply(module: Any, variables: Any, x: Any = X, g: Any = G) -> tuple[Any, Any]:
    gated, sown = jax.jit(
        partial(module.apply, train=False, mutable=["intermediates"])
    )(variables, x, g)
    return gated, sown["intermediates"]["alpha"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel": 1},
        {"reduction": 2, "vector": True},
        {"reduction": 100},  # more than there are channels: one is left
    ],
    ids=str,
)
def test_alpha_is_equations_1_and_2_voxel_by_voxel(changes):
    gate = gate_of(**changes)
    variables = variables_of(gate)
    p = variables["params"]
    _, got = apply(gate, variables)
    coarse = np.empty((2, 2, 2, 4, p["psi"]["kernel"].shape[-1]))
    for b, d, h, w in np.ndindex(coarse.shape[:4]):
        if gate.settings.kernel == 2:
            block = X[b, 2 * d : 2 * d + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        else:
            block = X[b, 2 * d, 2 * h, 2 * w][None, None, None]
        theta = np.einsum("ijkc,ijkco->o", block, p["W_x"]["kernel"])
        phi = G[b, d, h, w] @ p["W_g"]["kernel"][0, 0, 0] + p["W_g"]["bias"]
        q = np.maximum(theta + phi, 0) @ p["psi"]["kernel"][0, 0, 0] + p["psi"]["bias"]
        coarse[b, d, h, w] = 1 / (1 + np.exp(-q))
    large = (2, 4, 4, 8, coarse.shape[-1])
    expected = jax.jit(partial(jax.image.resize, shape=large, method="linear"))(coarse)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_fewer_inner_channels_and_vectors_show_in_the_shapes_of_the_parameters():
    def kernels(**changes):
        params = shapes(gate_of(**changes))["params"]
        return {k: v["kernel"].shape for k, v in params.items() if "kernel" in v}

    one = (1, 1, 1)
    assert kernels() == {
        "W_x": (2, 2, 2, 3, 3),
        "W_g": (*one, 5, 3),
        "psi": (*one, 3, 1),
        "W": (*one, 3, 3),
    }
    assert kernels(kernel=1, reduction=3, vector=True, output_transform=False) == {
        "W_x": (*one, 3, 1),
        "W_g": (*one, 5, 1),
        "psi": (*one, 1, 3),
    }


def test_a_signal_from_deeper_down_is_resized_to_the_grid_of_the_coefficients():
    gate = gate_of(align_corners=True)
    deep = RNG.normal(size=(2, 1, 1, 2, 5)).astype(np.float32)
    variables = variables_of(gate, deep)
    # Only the signal speaks, and only its mean over channels, so resizing it before
    # or after the convolution is the same.
    variables["params"]["W_x"]["kernel"][:] = 0
    _, from_deep = apply(gate, variables, g=deep)
    line = np.linspace(0, 1, 4)[:, None]
    resized = deep[..., :1, :] * (1 - line) + deep[..., 1:, :] * line
    resized = np.broadcast_to(resized, (2, 2, 2, 4, 5)).astype(np.float32)
    _, from_resized = apply(gate, variables, g=resized)
    np.testing.assert_allclose(from_deep, from_resized, rtol=1e-5)


def closed_half(**changes: Any) -> tuple[Any, dict[str, Any], np.ndarray]:
    """A gate that the signal closes (alpha 0) where W < 2 of 4 and opens elsewhere."""
    gate = gate_of(**changes)
    variables = variables_of(gate)
    params = variables["params"]
    params["W_x"]["kernel"][:] = 0
    params["W_g"]["kernel"][:] = 1
    params["W_g"]["bias"][:] = 0
    params["psi"]["kernel"][:] = 400
    params["psi"]["bias"][:] = -200
    signal = np.zeros_like(G)
    signal[..., 2:, 0] = 1
    return gate, variables, signal


def test_where_alpha_is_0_nothing_passes_and_the_encoder_gets_no_gradient():
    gate, variables, signal = closed_half()

    @jax.jit
    def gradient(x):
        def total(x):
            y = gate.apply(variables, x, signal, train=False)
            return (y * jnp.arange(1.0, 4.0)).sum()

        return jax.grad(total)(x)

    _, alpha = apply(gate, variables, g=signal)
    # Half-pixel resizing of 0 0 1 1 along W.
    line = [0, 0, 0, 0.25, 0.75, 1, 1, 1]
    np.testing.assert_allclose(
        alpha, np.broadcast_to(np.array(line)[:, None], (2, 4, 4, 8, 1)), atol=1e-6
    )
    slopes = np.asarray(gradient(X))
    assert (slopes[..., :3, :] == 0).all()
    # Elsewhere the output's transform and norm, times alpha: equation 3, first term.
    p, s = variables["params"], variables["batch_stats"]["norm"]
    gain = p["norm"]["scale"] / np.sqrt(s["var"] + 1e-5)
    open_slope = p["W"]["kernel"][0, 0, 0] @ (gain * [1, 2, 3])
    expected = np.array(line)[3:, None] * open_slope
    np.testing.assert_allclose(
        slopes[..., 3:, :], np.broadcast_to(expected, (2, 4, 4, 5, 3)), rtol=1e-4
    )


def test_the_gradient_is_both_terms_of_equation_3():
    # One coarse voxel: alpha is the same number for all eight voxels of x.
    gate = gate_of(output_transform=False)
    x, g = X[:1, :2, :2, :2], G[:1, :1, :1, :1]
    variables = variables_of(gate)
    p = variables["params"]
    p["psi"]["bias"][:] = 0.3
    weights = RNG.normal(size=x.shape).astype(np.float32)

    def total(x):
        y = gate.apply(variables, x, g, train=False)
        return (y * weights).sum()

    got = jax.jit(jax.grad(total))(x)

    theta = np.einsum("ijkc,ijkco->o", x[0], p["W_x"]["kernel"])
    inner = theta + g[0, 0, 0, 0] @ p["W_g"]["kernel"][0, 0, 0] + p["W_g"]["bias"]
    assert (inner > 0).any()
    psi = p["psi"]["kernel"][0, 0, 0, :, 0]
    alpha = sigmoid(np.maximum(inner, 0) @ psi + 0.3)
    d_alpha = alpha * (1 - alpha) * (p["W_x"]["kernel"] @ (psi * (inner > 0)))
    expected = alpha * weights + d_alpha * (weights * x).sum()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("output_transform", [False, True])
def test_with_alpha_1_the_skip_passes_as_it_is_up_to_the_output_transform(
    output_transform,
):
    gate = gate_of(output_transform=output_transform)
    variables = variables_of(gate)
    variables["params"]["psi"]["kernel"][:] = 0
    variables["params"]["psi"]["bias"][:] = 200
    gated, alpha = apply(gate, variables)
    np.testing.assert_array_equal(alpha, 1)
    if not output_transform:
        np.testing.assert_array_equal(gated, X)
        return
    p, s = variables["params"], variables["batch_stats"]["norm"]
    y = X @ p["W"]["kernel"][0, 0, 0] + p["W"]["bias"]
    expected = (y - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["norm"]["scale"]
    np.testing.assert_allclose(gated, expected + p["norm"]["bias"], rtol=0, atol=1e-5)


def test_sub_gates_are_joined_in_order_then_mixed_normalised_and_cut_at_0():
    multi = MultiGate(2, settings(output_transform=False))
    variables = variables_of(multi)
    params, stats = variables["params"], variables["batch_stats"]
    # The first sub-gate is shut, so only the second half of the kernel matters.
    params["sub_gate_1"]["psi"]["kernel"][:] = 0
    params["sub_gate_1"]["psi"]["bias"][:] = -200
    params["sub_gate_2"]["psi"]["kernel"][:] = 0
    params["sub_gate_2"]["psi"]["bias"][:] = 200
    got = jax.jit(partial(multi.apply, train=False))(variables, X, G)
    p, s = params["combine"], stats["combine"]["norm"]
    y = X @ p["conv"]["kernel"][0, 0, 0, 3:] + p["conv"]["bias"]
    y = (y - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["norm"]["scale"]
    expected = np.maximum(y + p["norm"]["bias"], 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert (expected == 0).any() and (expected > 0).any()


def first_alphas(**changes: Any) -> np.ndarray:
    """Alpha of 50 gates that were just drawn, `[50, ...]`."""
    gate = gate_of(**changes)

    def draw(key):
        variables = gate.init(key, X, G, train=False)
        return gate.apply(variables, X, G, train=False, mutable=["intermediates"])[1]

    quick: Any = {"xla_backend_optimization_level": 0}
    keys = jax.random.split(jax.random.key(0), 50)
    sown = jax.jit(jax.vmap(draw)).lower(keys).compile(compiler_options=quick)(keys)
    return np.asarray(sown["intermediates"]["alpha"][0])


@pytest.mark.parametrize("vector", [False, True])
def test_pass_through_begins_with_alpha_above_0_9_everywhere(vector):
    alphas = first_alphas(vector=vector)
    assert alphas.min() > 0.9
    np.testing.assert_allclose(alphas, 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_kaiming_begins_around_one_half_another_in_each_gate_and_voxel():
    each = first_alphas(pass_through=False).reshape(50, -1)
    assert 0.4 < each.mean() < 0.6
    assert (each.mean(1) > 0.5).any() and (each.mean(1) < 0.5).any()
    assert (each.std(1) > 0.01).mean() > 0.9
    assert all(np.any(a != b) for a, b in pairwise(each))


def test_one_gate_without_output_transform_leaves_exactly_alpha_x():
    multi = MultiGate(1, settings(output_transform=False))
    variables = variables_of(multi)
    assert set(variables["params"]) == {"sub_gate_1"}
    got: Any
    got, sown = jax.jit(partial(multi.apply, train=False, mutable=["intermediates"]))(
        variables, X, G
    )
    alpha = sown["intermediates"]["sub_gate_1"]["alpha"][0]
    np.testing.assert_allclose(got, np.asarray(alpha) * X, rtol=1e-6)
