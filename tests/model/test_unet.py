"""The whole network against NumPy, against exact counts, and switch by switch."""

import importlib
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy_network import NumpyNetwork, random_variables

from attunet_jax.model import build_network
from configs import base

FIELDS: dict[str, Any] = base.get_config().model.to_dict() | {
    "widths": (2, 3, 4, 5),  # the fewest scales that have gates of both kinds
    "gating_channels": 5,  # as the bottleneck, so that a mix-up would fit
    "convolution": "compiler",
}
CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "corners aligned, no signal, the form for GPUs": {
        "align_corners": True,
        "gating_channels": 0,
        "convolution": "channels_last",
    },
    "every other switch": {
        "sub_gates": 1,
        "gate_source": "bottleneck",
        "gate_kernel": 1,
        "gate_reduction": 2,
        "gate_output_transform": False,
        "attention_coefficients": "vector",
        "deep_supervision": "auxiliary",
        "align_corners": True,
        "convolution": "matrix",
    },
}
SMALL = {"widths": (2, 3, 4)}
# Half the time to compile.
QUICK: Any = {"xla_backend_optimization_level": 0}
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 16, 8, 24, 1)).astype(np.float32)
WEIGHTS = RNG.normal(size=(2, 16, 8, 24, 3)).astype(np.float32)


def build(**changes: Any) -> Any:
    return build_network(FIELDS | changes, num_classes=3, backend="cpu", device_count=1)


@cache
def shapes(network: Any) -> Any:
    size = 2 ** (len(network.widths) - 1)
    image = jax.ShapeDtypeStruct((1, size, size, size, 1), np.float32)
    return jax.eval_shape(
        lambda image: network.init(jax.random.key(0), image, train=False), image
    )


def flat(tree: Any) -> dict[str, Any]:
    return {str(path): x for path, x in flatten_dict(tree, sep="/").items()}


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    return unflatten_dict(leaves, sep="/")


def single(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(np.float32), tree)


@cache
def variables(name: str) -> dict[str, Any]:
    return random_variables(shapes(build(**(CHANGES | {"small": SMALL})[name])), seed=1)


@cache
def evaluate(name: str) -> Any:
    """Compiled: variables -> (logits, what was sown by path)."""
    network = build(**CHANGES[name])

    def forward(variables):
        logits, sown = network.apply(
            variables, IMAGE, train=False, mutable=["intermediates", "auxiliary"]
        )
        return logits, flat(sown)

    lowered = jax.jit(forward).lower(single(variables(name)))
    return lowered.compile(compiler_options=QUICK)


def objective(logits: Any, auxiliary: Any) -> Any:
    """Some scalar that every logit moves."""
    return (logits * WEIGHTS).sum() + sum((2 * y * WEIGHTS).sum() for y in auxiliary)


def alphas(sown: Any) -> dict[str, np.ndarray]:
    return {
        path.removeprefix("intermediates/").removesuffix("/alpha"): np.asarray(leaf[0])
        for path, leaf in sown.items()
        if path.endswith("/alpha")
    }


def assert_within(got: Any, expected: np.ndarray, share: float) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= share * np.abs(expected).max()


@pytest.mark.parametrize("name", CHANGES)
def test_evaluation_equals_equations_1_and_2_in_numpy(name):
    theirs = NumpyNetwork(variables(name), FIELDS | CHANGES[name], train=False)
    expected = theirs(IMAGE.astype(np.float64))
    logits, sown = evaluate(name)(single(variables(name)))
    assert_within(logits, expected, 1e-5)
    ours = alphas(sown)
    assert ours.keys() == theirs.alpha.keys() and ours
    for gate, alpha in theirs.alpha.items():
        assert_within(ours[gate], alpha, 1e-5)
    auxiliary = sown.get("auxiliary/logits", ())
    assert len(auxiliary) == len(theirs.auxiliary)
    for got, wanted in zip(auxiliary, theirs.auxiliary, strict=True):
        assert_within(got, wanted, 1e-5)


@pytest.mark.parametrize("name", ["defaults", "every other switch"])
def test_training_equals_numpy_in_logits_statistics_and_slopes(name):
    network, wide = build(**CHANGES[name]), variables(name)
    narrow = single(wide)

    def train(params):
        logits, updates = network.apply(
            narrow | {"params": params},
            IMAGE,
            train=True,
            mutable=["batch_stats", "auxiliary"],
        )
        auxiliary = updates.get("auxiliary", {}).get("logits", ())
        return objective(logits, auxiliary), (logits, updates["batch_stats"])

    compiled = (
        jax.jit(jax.value_and_grad(train, has_aux=True))
        .lower(narrow["params"])
        .compile(compiler_options=QUICK)
    )
    (_, (logits, statistics)), gradients = compiled(narrow["params"])

    def in_numpy(params):
        theirs = NumpyNetwork(wide | {"params": params}, network_fields, train=True)
        return theirs, theirs(IMAGE.astype(np.float64))

    network_fields = FIELDS | CHANGES[name]
    theirs, expected = in_numpy(wide["params"])
    assert_within(logits, expected, 1e-5)
    ours = flat(statistics)
    assert ours.keys() == theirs.statistics.keys()
    for path, statistic in theirs.statistics.items():
        np.testing.assert_allclose(ours[path], statistic, rtol=1e-5, atol=1e-6)

    def slope(direction, step=1e-6):
        values = []
        for sign in (1, -1):
            moved = jax.tree.map(
                lambda p, d, s=sign: p + s * step * d, wide["params"], direction
            )
            theirs, expected = in_numpy(moved)
            values.append(objective(expected, theirs.auxiliary))
        return (values[0] - values[1]) / (2 * step)

    leaves = flat(wide["params"])
    rng = np.random.default_rng(2)
    for module in wide["params"]:
        direction = {
            path: rng.normal(size=x.shape)
            / np.sqrt(x.size)
            * path.startswith(module + "/")
            for path, x in leaves.items()
        }
        expected = slope(nested(direction))
        got = sum(
            (np.asarray(g, np.float64) * direction[path]).sum()
            for path, g in flat(gradients).items()
        )
        assert abs(got - expected) <= 1e-3 * max(abs(expected), 0.1), module


@pytest.mark.parametrize(
    "config, changes, count",
    [
        ("unet", {}, 5_888_004),
        ("attention_unet", {}, 6_407_402),
        ("attention_unet_published", {}, 6_473_322),
        ("attention_unet_published", {"sub_gates": 1}, 6_214_151),
        ("attention_unet", {"gate_source": "bottleneck"}, 6_411_498),
        ("unet_wide", {}, 6_444_328),
        ("unet_huge", {}, 10_403_190),
    ],
)
def test_trainable_parameters_are_as_many_as_published(config, changes, count):
    got = importlib.import_module(f"configs.{config}").get_config()
    network: Any = build_network(
        got.model.to_dict() | changes,
        num_classes=4,
        backend="cpu",
        device_count=1,
    )
    leaves = jax.tree.leaves(shapes(network)["params"])
    assert sum(leaf.size for leaf in leaves) == count


def test_the_modules_are_named_by_scale_and_scale_1_has_no_gate():
    config = importlib.import_module("configs.attention_unet").get_config()
    network: Any = build_network(
        config.model.to_dict(), num_classes=4, backend="cpu", device_count=1
    )
    params = shapes(network)["params"]
    assert set(params) == {
        *(f"encoder_{scale}" for scale in (1, 2, 3, 4)),
        "bottleneck",
        "gating_signal",
        *(f"gate_{scale}" for scale in (2, 3, 4)),
        *(f"decoder_{scale}" for scale in (1, 2, 3, 4)),
        *(f"supervision_{scale}" for scale in (1, 2, 3, 4)),
        "fusion",
    }
    assert set(params["gate_2"]) == {"sub_gate_1", "sub_gate_2", "combine"}
    assert set(params["gate_2"]["sub_gate_1"]) == {"W_x", "W_g", "psi", "W", "norm"}
    assert set(params["gate_2"]["sub_gate_1"]["W_x"]) == {"kernel"}  # no bias
    assert set(params["decoder_1"]) == {"conv_1", "norm_1", "conv_2", "norm_2"}
    # W_g reads the gating signal (128), then the next coarser decoder (128, 64).
    widths = [params[f"gate_{s}"]["sub_gate_1"]["W_g"]["kernel"].shape for s in (4, 3)]
    assert widths == [(1, 1, 1, 128, 128), (1, 1, 1, 128, 64)]


def test_the_plain_network_has_no_gate_and_no_signal():
    params = shapes(build(sub_gates=0))["params"]
    assert not [name for name in params if "gat" in name]


def test_without_gating_channels_the_bottleneck_itself_gates():
    params = shapes(build(gating_channels=0))["params"]
    assert "gating_signal" not in params
    kernel = params["gate_3"]["sub_gate_1"]["W_g"]["kernel"]
    assert kernel.shape == (1, 1, 1, 5, 4)


def moved(name: str, path: str) -> dict[str, Any]:
    """The variables with one parameter changed, and decoder 3 made deaf to its input.

    With its last scale zero, only its last bias reaches its features.
    """
    leaves = flat(variables(name))
    leaves["params/decoder_3/norm_2/scale"] = np.zeros(4)
    if path:
        leaves[f"params/{path}"] = leaves[f"params/{path}"] + 0.5
    return single(nested(leaves))


def gates_that_change(name: str, path: str) -> set[str]:
    before, after = (alphas(evaluate(name)(moved(name, p))[1]) for p in ("", path))
    return {k.split("/")[0] for k in before if np.any(before[k] != after[k])}


def test_decoder_features_gate_the_next_finer_skip_and_the_signal_the_deepest():
    assert gates_that_change("defaults", "gating_signal/norm/bias") == {"gate_3"}
    assert gates_that_change("defaults", "decoder_3/norm_2/bias") == {"gate_2"}


def test_with_bottleneck_as_source_the_signal_gates_every_gated_skip():
    name = "every other switch"
    both = {"gate_2", "gate_3"}
    assert gates_that_change(name, "gating_signal/norm/bias") == both
    assert gates_that_change(name, "decoder_3/norm_2/bias") == set()


def test_the_signal_only_gates_and_never_feeds_the_decoder():
    leaves = flat(variables("defaults"))
    for path in leaves:
        if path.endswith("psi/kernel"):
            leaves[path] = np.zeros_like(leaves[path])
    other = dict(leaves)
    for path in leaves:
        if path.startswith("params/gating_signal"):
            other[path] = leaves[path] + 1.0
    one, two = (evaluate("defaults")(single(nested(x)))[0] for x in (leaves, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "field, value",
    [
        ("widths", (2, 3)),
        ("sub_gates", 0),
        ("sub_gates", 1),
        ("gating_channels", 0),
        ("gate_source", "bottleneck"),
        ("gate_kernel", 1),
        ("gate_reduction", 100),
        ("gate_output_transform", False),
        ("attention_coefficients", "vector"),
        ("gate_initialisation", "kaiming"),
        ("deep_supervision", "auxiliary"),
        ("deep_supervision", "none"),
        ("align_corners", True),
        ("compute_dtype", "bfloat16"),
        ("remat", True),
        ("convolution", "matrix"),
        ("convolution", "auto"),
    ],
)
def test_every_switch_builds_a_network_that_trains(field, value):
    network = build(**(SMALL | {field: value}))
    image = jax.ShapeDtypeStruct((1, 8, 16, 8, 1), np.float32)
    logits, found = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=True), image
    )
    assert (logits.shape, logits.dtype) == ((1, 8, 16, 8, 3), jnp.float32)
    for kind in ("params", "batch_stats"):
        assert {x.dtype for x in jax.tree.leaves(found[kind])} == {jnp.dtype("float32")}
    # Of all but the finest scale, each on the finest grid.
    auxiliary = found.get("auxiliary", {}).get("logits", ())
    assert len(auxiliary) == (1 if value == "auxiliary" else 0)
    assert all(y.shape == logits.shape for y in auxiliary)


def test_attention_lies_on_the_grid_of_its_skip():
    network = build()
    _, sown = jax.eval_shape(
        lambda v: network.apply(v, IMAGE, train=False, mutable=["intermediates"]),
        shapes(network),
    )
    found = {
        name: {k: leaf["alpha"][0].shape for k, leaf in gates.items()}
        for name, gates in sown["intermediates"].items()
    }
    assert found == {
        "gate_2": dict.fromkeys(("sub_gate_1", "sub_gate_2"), (2, 8, 4, 12, 1)),
        "gate_3": dict.fromkeys(("sub_gate_1", "sub_gate_2"), (2, 4, 2, 6, 1)),
    }


def test_bfloat16_computes_nearly_the_same_and_gives_float32_logits():
    network = build(**SMALL, compute_dtype="bfloat16")

    def forward(variables):
        logits, sown = network.apply(
            variables, IMAGE, train=False, mutable=["intermediates"]
        )
        return logits, flat(sown)

    lowered = jax.jit(forward).lower(single(variables("small")))
    compiled = lowered.compile(compiler_options=QUICK)
    logits, sown = compiled(single(variables("small")))
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in alphas(sown).values()} == {jnp.dtype("bfloat16")}
    theirs = NumpyNetwork(variables("small"), FIELDS | SMALL, train=False)
    expected = theirs(IMAGE.astype(np.float64))
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.05  # float32 would be nearer than the lower bound


def test_recomputing_activations_changes_no_gradient():
    results, programs = [], []
    small = {"widths": (2, 3), "sub_gates": 0, "deep_supervision": "none"}
    values = single(random_variables(shapes(build(**small)), seed=3))
    for remat in (False, True):
        network = build(**small, remat=remat)

        def total(params, network=network):
            logits, updates = network.apply(
                values | {"params": params}, IMAGE, train=True, mutable=["batch_stats"]
            )
            return (logits * WEIGHTS).sum(), updates

        gradient = jax.jit(jax.grad(total, has_aux=True))
        traced = gradient.trace(values["params"])
        programs.append(str(traced.jaxpr))
        compiled = traced.lower().compile(compiler_options=QUICK)
        results.append(compiled(values["params"]))
    assert ["remat" in text or "checkpoint" in text for text in programs] == [
        False,
        True,
    ]
    for (path, plain), recomputed in zip(
        flat(results[0][0]).items(),
        flat(results[1][0]).values(),
        strict=True,
    ):
        scale = max(float(np.abs(plain).max()), 1.0)
        np.testing.assert_allclose(
            recomputed, plain, rtol=0, atol=1e-4 * scale, err_msg=path
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        results[0][1],
        results[1][1],
    )


@pytest.mark.parametrize(
    "shape", [(1, 8, 8, 12, 1), (1, 8, 4, 8, 1), (1, 7, 8, 8, 1), (8, 8, 8, 1)]
)
def test_sizes_that_the_halvings_do_not_divide_are_refused(shape):
    network = build()
    image = jax.ShapeDtypeStruct(shape, np.float32)
    with pytest.raises(ValueError, match="divisible by 8, not") as caught:
        jax.eval_shape(lambda x: network.apply(shapes(network), x, train=False), image)
    assert str(shape) in str(caught.value)
