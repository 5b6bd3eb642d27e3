"""The benchmark's real program in tiny, its counts by hand and by other libraries."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from attunet_jax.model import build_network
from attunet_jax.train.state import parameter_count
from configs import attention_unet, attention_unet_published, base, unet
from launch.benchmark import flops
from launch.benchmark.rows import ratios, row, with_work
from launch.benchmark.timing import Series, alternating, warmed

PAPER_SHAPE = (96, 160, 160)
CONFIGS: dict[str, Any] = {
    "unet": unet,
    "attention_unet": attention_unet,
    "attention_unet_published": attention_unet_published,
}


def fields_of(name: str, **changes: Any) -> dict[str, Any]:
    model = CONFIGS[name].get_config().model.to_dict()
    return model | {"convolution": "compiler"} | changes


def operations_of(name: str, shape: Any, batch: int = 1, **changes: Any) -> Any:
    return flops.network_operations(fields_of(name, **changes), 4, batch, shape)


def network_of(fields: dict[str, Any]) -> Any:
    return build_network(fields, class_count=4, backend="cpu", device_count=1)


def variables_of(network: Any) -> Any:
    size = 2 ** (len(network.widths) - 1)
    shapes = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, size, size, size, 1)), train=False),
        jax.random.key(0),
    )
    return {name: shapes[name] for name in ("params", "batch_stats")}


# Parameters and forward GFLOP of the published networks at 160x160x96, one sample.
@pytest.mark.parametrize(
    ("name", "parameters", "gigaflop"),
    [
        ("unet", 5_888_004, 339.4),
        ("attention_unet", 6_407_402, None),
        ("attention_unet_published", 6_473_322, 346.7),
    ],
)
def test_counts_are_those_of_the_published_networks(name, parameters, gigaflop):
    operations = operations_of(name, PAPER_SHAPE)
    assert sum(o.parameters for o in operations) == parameters
    if gigaflop:
        assert round(flops.forward_work(operations).flop / 1e9, 1) == gigaflop


def test_a_two_scale_unet_is_counted_as_by_hand():
    operations = operations_of("unet", (2, 4, 6), batch=3, widths=(5, 7))
    fine, coarse = 3 * 48, 3 * 6  # voxels of the batch
    convolutions = {
        "encoder_1 conv_1": fine * 27 * 1 * 5,
        "encoder_1 conv_2": fine * 27 * 5 * 5,
        "bottleneck conv_1": coarse * 27 * 5 * 7,
        "bottleneck conv_2": coarse * 27 * 7 * 7,
        "decoder_1 conv_1": fine * 27 * 12 * 5,
        "decoder_1 conv_2": fine * 27 * 5 * 5,
        "supervision_1": fine * 5 * 4,
        "fusion": fine * 4 * 4,
    }
    assert {o.name: o.forward_flop for o in operations if o.kernel} == {
        name: 2 * products for name, products in convolutions.items()
    }
    # The image needs no gradient: every other convolution goes back twice.
    forward = sum(convolutions.values())
    train = flops.train_work(operations, 4, 3, (2, 4, 6))
    assert train.flop == 2 * (3 * forward - convolutions["encoder_1 conv_1"])


def test_bytes_of_a_two_scale_unet_are_counted_as_by_hand():
    operations = operations_of("unet", (2, 4, 6), widths=(5, 7))
    fine, coarse = 48, 6
    channels_moved = {
        "encoder_1 conv_1": fine * (1 + 5),
        "encoder_1 conv_2": fine * (5 + 5),
        "pool_1": (fine + coarse) * 5,
        "bottleneck conv_1": coarse * (5 + 7),
        "bottleneck conv_2": coarse * (7 + 7),
        "up_1": (fine + coarse) * 7,
        "decoder_1 conv_1": fine * (12 + 5),
        "decoder_1 conv_2": fine * (5 + 5),
        "supervision_1": fine * (5 + 4),
        "fusion": fine * (4 + 4),
    }
    kernels = sum(o.parameters for o in operations if o.kernel)
    expected = 4 * (sum(channels_moved.values()) + kernels)
    assert flops.forward_work(operations).bytes == expected


def test_half_the_type_moves_half_the_activations_and_the_same_parameters():
    wide = operations_of("attention_unet", (16, 16, 16))
    narrow = operations_of("attention_unet", (16, 16, 16), compute_dtype="bfloat16")
    kernels = 4 * sum(o.parameters for o in wide if o.kernel)
    activations = flops.forward_work(wide).bytes - kernels
    assert flops.forward_work(narrow).bytes - kernels == activations / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"sub_gates": 1, "gate_output_transform": False, "gate_kernel": 1},
        {"gate_source": "bottleneck", "gating_channels": 0, "gate_reduction": 2},
        {"attention_coefficients": "vector", "deep_supervision": "none"},
        {"deep_supervision": "auxiliary", "widths": (3, 5, 7)},
    ],
)
def test_every_switch_has_as_many_parameters_as_the_network_itself(changes):
    fields = fields_of("attention_unet", **changes)
    params = variables_of(network_of(fields))["params"]
    operations = flops.network_operations(fields, 4, 1, (16, 16, 16))
    assert sum(o.parameters for o in operations) == parameter_count(params)


# XLA leaves the zeros of the padding out and counts normalisation, activation, pooling
# and upsampling; with the padding taken out of ours, those are what is left: under 3 %.
@pytest.mark.parametrize("name", ["unet", "attention_unet_published"])
def test_flop_agree_with_the_compilers_count_of_the_same_network(name):
    fields = fields_of(name)
    network = network_of(fields)
    image = jax.ShapeDtypeStruct((1, 32, 32, 32, 1), jnp.float32)
    quick: Any = {"xla_backend_optimization_level": 0}
    compiled = (
        jax.jit(lambda v, x: network.apply(v, x, train=False))
        .lower(variables_of(network), image)
        .compile(compiler_options=quick)
    )
    analysis: Any = compiled.cost_analysis()
    theirs = analysis["flops"]
    ours = 0.0
    for operation in operations_of(name, (32, 32, 32)):
        inside = 1.0
        if operation.kernel == 3:
            inside = math.prod((3 * n - 2) / (3 * n) for n in operation.grid)
        ours += inside * operation.forward_flop
    assert ours < theirs < 1.03 * ours


def test_alternating_rounds_begin_with_another_runner_each():
    calls = []

    def runner(name):
        def run(count):
            calls.append(name)
            return 0.5 * count

        return run

    series = alternating({"a": runner("a"), "b": runner("b")}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert series["a"].seconds == (0.5, 0.5, 0.5)


def test_a_short_call_is_repeated_until_a_round_lasts_a_fifth_of_a_second():
    counts_asked = []

    def run(count):
        counts_asked.append(count)
        return 0.0625 * count

    series = alternating({"a": run}, rounds=2)["a"]
    assert counts_asked == [1, 4, 4] and series.seconds == (0.0625, 0.0625)


def test_a_warmed_runner_measures_without_the_call_that_it_begins_with():
    counts_asked = []

    def run(count):
        counts_asked.append(count)
        return 10.0 if len(counts_asked) == 1 else 0.5 * count

    assert warmed(run)(3) == 1.5 and counts_asked == [1, 3]


def test_a_runner_that_fails_amid_the_rounds_is_left_out_and_the_others_go_on():
    left_out = []

    def fails(name, error):
        left_out.append((name, str(error)))
        return isinstance(error, OSError)

    done = []

    def breaking(count):
        done.append(count)
        if len(done) == 3:
            raise OSError("gone")
        return 1.0 * count

    runners = {"breaks": breaking, "a": lambda n: 2.0 * n, "b": lambda n: 3.0 * n}
    series = alternating(runners, 3, fails)
    assert left_out == [("breaks", "gone")]
    assert {k: v.seconds for k, v in series.items()} == {
        "a": (2.0,) * 3,
        "b": (3.0,) * 3,
    }

    def wrong(count):
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="ours"):
        alternating({"a": wrong}, 1, fails)


def test_a_rate_is_the_median_of_rates_with_its_quartiles():
    entry = row("x", Series((1.0, 2.0, 4.0, 4.0, 8.0)), per=8, unit="cases/s")
    assert entry["median"] == 2.0 and entry["quartiles"] == [2.0, 4.0]


def test_shares_and_floor_come_from_work_and_peaks():
    peaks: dict[str, Any] = {
        "matrix_product_flop_per_s": {"float32": 100.0},
        "copy_bytes_per_s": 10.0,
    }
    entry = row("x", Series((4.0,)), compute_dtype="float32")
    entry = with_work(entry, flops.Work(flop=100, bytes=20), peaks)
    assert entry["share_of_matrix_product_peak"] == 0.25
    assert entry["share_of_copy_peak"] == 0.5
    assert entry["floor_s"] == 2.0


def test_ratios_are_of_equal_rounds_and_name_the_best_peers():
    series = {
        "attunet_jax, float32": Series((2.0, 6.0, 4.0)),
        "torch, slow": Series((4.0, 12.0, 16.0)),
        "torch, half": Series((1.0, 2.0, 4.0)),
        "monai": Series((3.0, 4.0, 5.0)),
    }
    dtypes = dict.fromkeys(series, "float32") | {"torch, half": "bfloat16"}
    found = {r["peer"]: r for r in ratios("x", "unet", series, dtypes)}
    assert found["torch, slow"]["ours_over_peer"] == 0.5
    assert found["torch, half"]["ours_over_peer"] == 2.0
    for field, best in (
        ("best_peer", "torch, half"),
        ("best_of_same_network_and_type", "torch, slow"),
    ):
        assert [peer for peer, ratio in found.items() if ratio[field]] == [best]


def test_the_program_measures_everything_and_writes_what_it_prints(
    run_program, finish, tmp_path
):
    output = tmp_path / "benchmark"
    status, printed, errors = finish(
        run_program(
            "launch.benchmark",
            "speed",
            "--size=tiny",
            "--rounds=2",
            "--networks=attention_unet",
            f"--output={output}",
        )
    )
    assert status == 0, errors
    assert (output / "benchmark.md").read_text() in printed
    document = json.loads((output / "benchmark.json").read_text())
    assert (document["format"], document["version"]) == ("attunet_jax.benchmark", 1)
    measured = {(r["figure"], r["network"]) for r in document["rows"]}
    parts = {figure for figure, _ in measured if figure.startswith("attention gates")}
    assert {"attention gates, batch 1: W_x", "attention gates, batch 1: W_g"} < parts
    measured = {(figure, n) for figure, n in measured if figure not in parts}
    assert measured == {
        ("forward pass, batch 1", "attention_unet"),
        ("train step, batch 2", "attention_unet"),
        ("whole-case prediction", "attention_unet"),
        ("input pipeline", None),
        ("preparation, 4 scans", None),
        ("metrics of a case", None),
    }
    for entry in document["rows"]:
        low, high = entry["quartiles"]
        assert len(entry["rounds"]) == 2 and 0 < low <= entry["median"] <= high
    work = [r for r in document["rows"] if "flop" in r]
    assert len(work) == 2 and all(0 < r["floor_s"] for r in work)
    assert document["machine"]["packages"]["jax"] == jax.__version__
    assert document["ratios"] == document["skipped"] == []
    assert not list(output.glob(".*"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--size=huge"], "--size=huge: there are paper, small, tiny"),
        (["--against=caffe"], "--against=caffe: there are torch, monai"),
        (["--measure=sleep"], "--measure=sleep: there are forward, train_step"),
        (["--convolution=fft"], "--convolution=fft: there are auto, compiler, matrix"),
        (["--networks=vnet"], "--networks=vnet: there are unet, attention_unet"),
        (["--compute_dtype=int8"], "--compute_dtype=int8"),
        (["--rounds=0"], "--rounds=0 must be 1 or more"),
        (["--seconds=3"], "--seconds=3"),
        (["--against=torch", "--peer_python=/no/such"], "--peer_python=/no/such"),
    ],
)
def test_a_word_that_cannot_be_used_is_named_with_those_that_can(refused, words, part):
    status, line = refused("launch.benchmark", "speed", *words)
    assert status == 2 and part in line


def test_a_device_that_is_not_there_is_named(refused):
    if jax.default_backend() == "tpu":
        pytest.skip("there is a TPU")
    status, line = refused("launch.benchmark", "speed", "--device=tpu")
    assert status == 2 and "--device=tpu: JAX has none here" in line


def test_a_peer_that_is_not_installed_says_which_extra_to_install(refused, tmp_path):
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "monai torch"\n')
    bare.chmod(0o755)
    status, line = refused(
        "launch.benchmark", "speed", "--against=torch,monai", f"--peer_python={bare}"
    )
    assert status == 2
    assert "has no monai, torch; pip install 'attunet_jax[benchmark]'" in line


@pytest.mark.parametrize("name", CONFIGS)
def test_the_torch_restatement_has_our_parameters_and_our_logits(name):
    torch = pytest.importorskip("torch")
    import numpy as np

    from attunet_jax.model import torch_weights
    from launch.benchmark.peers import torch_unet

    model = CONFIGS[name].get_config().model
    peer = torch_unet.Published(model.widths, 4, model.sub_gates, model.gating_channels)
    network = network_of(fields_of(name))
    image = np.random.default_rng(0).normal(size=(1, 16, 32, 48, 1))
    image = image.astype(np.float32)
    # Optimising hundreds of random draws would take ten times as long as drawing.
    quick: Any = {"xla_backend_optimization_level": 0}
    drawing = jax.jit(lambda key: network.init(key, image, train=False))
    key = jax.random.key(1)
    variables = drawing.lower(key).compile(compiler_options=quick)(key)
    variables = {k: variables[k] for k in ("params", "batch_stats")}
    parameters = parameter_count(variables["params"])
    assert torch_unet.parameter_count(peer) == parameters
    tensors = torch_weights.published_tensors(variables)
    loaded = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}
    missing, surplus = peer.load_state_dict(loaded, strict=False)
    assert not surplus and all(k.endswith("num_batches_tracked") for k in missing)
    with torch.no_grad():
        turned = torch.from_numpy(torch_weights.channels_last(image).copy())
        theirs = peer.eval()(turned).numpy()
    apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
    ours = np.asarray(apply(variables, image))
    theirs = torch_weights.channels_last(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_peers_run_in_turn_with_ours_and_ratios_are_printed(
    run_program, finish, tmp_path
):
    pytest.importorskip("torch")
    status, printed, errors = finish(
        run_program(
            "launch.benchmark",
            "speed",
            "--size=tiny",
            "--rounds=2",
            "--networks=attention_unet",
            "--measure=forward,train_step",
            "--against=torch",
            f"--output={tmp_path}",
        )
    )
    assert status == 0, errors
    document = json.loads((tmp_path / "benchmark.json").read_text())
    names = {peer["name"] for peer in document["peers"]}
    assert names == {
        "torch, eager",
        "torch, channels_last_3d",
        "torch, channels_last_3d, autocast",
    }
    ours = document["parameters"]["attention_unet"]
    assert {peer["parameters"] for peer in document["peers"]} == {ours}
    figures = {(r["figure"], r["peer"]) for r in document["ratios"]}
    assert len(figures) == 2 * len(names)
    assert "of the time of the best peer" in printed


def test_sizes_of_the_benchmark_fit_the_networks_and_the_configs():
    from launch.benchmark.workload import SIZES, config_of

    for size in SIZES.values():
        divisor = 2 ** (len(size.widths) - 1)
        assert all(n % divisor == 0 for n in size.shape)
        config = config_of("attention_unet", size, "float32")
        assert config.data.read_shape == size.read_shape
        assert config.model.convolution == "auto"
        forced = config_of("unet", size, "float32", "matrix")
        assert forced.model.convolution == "matrix"
    assert SIZES["paper"].shape == base.get_config().data.crop_shape
    assert SIZES["paper"].batch == base.get_config().data.batch_size
