"""The speed benchmark: FLOP by hand, PyTorch's network equals ours, one real run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.model import build_network
from attunet_jax.ops import dispatch
from attunet_jax.train.state import parameter_count
from configs import attention_unet, attention_unet_published, unet
from launch.benchmark import cpu_forms, flops, speed
from launch.benchmark.report import make_result, ratios, with_work
from launch.benchmark.timing import Series, alternating, with_warmup

ROOT = Path(__file__).resolve().parents[3]
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
    return build_network(fields, num_classes=4, backend="cpu", device_count=1)


# Parameters and forward GFLOP of the published networks at 160x160x96, one sample.
def test_counts_are_those_of_the_published_networks():
    for name, parameters, gigaflop in (
        ("unet", 5_888_004, 339.4),
        ("attention_unet", 6_407_402, None),
        ("attention_unet_published", 6_473_322, 346.7),
    ):
        operations = operations_of(name, PAPER_SHAPE)
        assert sum(o.parameters for o in operations) == parameters, name
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


def test_rounds_begin_with_another_runner_each_and_last_a_fifth_of_a_second():
    calls = []

    def runner(name: str, seconds: float):
        def run(count):
            calls.append(f"{name}{count}")
            return seconds * count

        return run

    runners = {"a": runner("a", 0.5), "b": runner("b", 0.0625)}
    series = alternating(runners, rounds=3)
    assert " ".join(calls) == "a1 b1" + " a1 b4" + " b4 a1" + " a1 b4"
    assert series["a"].seconds == (0.5,) * 3 and series["b"].seconds == (0.0625,) * 3
    calls.clear()
    assert with_warmup(runners["a"])(3) == 1.5 and calls == ["a1", "a3"]


def test_rates_shares_and_ratios_are_those_by_hand():
    rate = make_result("x", Series((1.0, 2.0, 4.0, 4.0, 8.0)), per=8, unit="cases/s")
    assert rate["median"] == 2.0 and rate["quartiles"] == [2.0, 4.0]
    peaks: dict[str, Any] = {
        "matrix_product_flop_per_s": {"float32": 100.0},
        "copy_bytes_per_s": 10.0,
    }
    result = make_result("x", Series((4.0,)), compute_dtype="float32")
    result = with_work(result, flops.Work(flop=100, bytes=20), peaks)
    assert result["share_of_matrix_product_peak"] == 0.25
    assert (result["share_of_copy_peak"], result["floor_s"]) == (0.5, 2.0)
    series = {
        "attunet_jax, float32": Series((2.0, 6.0, 4.0)),
        "torch, slow": Series((4.0, 12.0, 16.0)),
        "torch, half": Series((1.0, 2.0, 4.0)),
        "monai": Series((3.0, 4.0, 5.0)),
    }
    dtypes = dict.fromkeys(series, "float32") | {"torch, half": "bfloat16"}
    by_peer = {r["peer"]: r for r in ratios("x", "unet", series, dtypes)}
    assert by_peer["torch, slow"]["ours_over_peer"] == 0.5
    assert by_peer["torch, half"]["ours_over_peer"] == 2.0
    for field, best in (
        ("best_peer", "torch, half"),
        ("best_of_same_network_and_type", "torch, slow"),
    ):
        assert [peer for peer, ratio in by_peer.items() if ratio[field]] == [best]


def test_a_convolution_that_is_absent_here_is_left_out_and_named(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "onednn_available", lambda dtype: dtype == "float32")
    names = ("onednn", "matrix")
    assert cpu_forms.available_convolutions(names, "float32") == names
    assert cpu_forms.available_convolutions(names, "bfloat16") == ("matrix",)
    assert "onednn" in capsys.readouterr().err


def test_the_gain_of_a_cpu_form_is_the_ratio_within_each_round():
    assert cpu_forms.SWITCH == dispatch.SWITCH
    assert {*cpu_forms.CONVOLUTIONS, "channels_last"} == set(dispatch.CONVOLUTIONS)
    series = {
        cpu_forms.ALL_FORMS: Series((1.0, 2.0, 3.0)),
        "bf16_bits": Series((2.0, 4.0, 12.0)),
        "matrix": Series((1.0, 1.0, 1.0)),
        "compiler": Series((4.0, 2.0, 1.0)),
    }
    assert cpu_forms.ratio_lines(
        "bfloat16", series, ("bf16_bits",), ("matrix", "compiler")
    ) == [
        "| bfloat16 | bf16_bits / without | 0.500 (0.375 to 0.500) |",
        "| bfloat16 | matrix / compiler | 0.500 (0.375 to 0.750) |",
    ]


@pytest.mark.cluster  # 50 s, mostly of compiling: nobody's results depend on it
def test_the_program_measures_everything_and_writes_what_it_prints(
    quick_program, tmp_path
):
    """With PyTorch in turn where it is installed."""
    with_torch = importlib.util.find_spec("torch") is not None
    done = subprocess.run(
        [
            *(sys.executable, "-m", "launch.benchmark", "speed", "--size=tiny"),
            *("--rounds=1", "--networks=attention_unet", "--convolution=compiler"),
            *(f"--output={tmp_path}", "--against=" + "torch" * with_torch),
        ],
        cwd=ROOT,
        env=os.environ | quick_program,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmark.md").read_text() in done.stdout
    document = json.loads((tmp_path / "benchmark.json").read_text())
    ours = [r for r in document["results"] if r["by"] == "attunet_jax"]
    measured = {r["measurement"] for r in ours}
    parts = {name for name in measured if name.startswith("attention gates")}
    assert {"attention gates, batch 1: W_x", "attention gates, batch 1: W_g"} < parts
    assert measured - parts == {
        "forward pass, batch 1",
        "train step, batch 2",
        "whole-case prediction",
        "input pipeline",
        "preparation, 4 scans",
        "metrics of a case",
    }
    assert all(result["median"] > 0 for result in document["results"])
    assert document["skipped"] == []
    assert len(document["ratios"]) == 2 * 3 * with_torch
    parameters = {peer["parameters"] for peer in document["peers"]}
    assert parameters <= {document["parameters"]["attention_unet"]}


def test_a_bad_argument_is_named_with_what_can_be_used(refused, tmp_path):
    status, line = refused("launch.benchmark", "sped")
    assert status == 2 and "sped: the first argument is one of speed, memory" in line
    bare = tmp_path / "python"  # an interpreter without libraries
    bare.write_text('#!/bin/sh\necho "monai torch"\n')
    bare.chmod(0o755)
    for words, part in (
        (["--size=huge"], "--size=huge: there are paper, small, tiny"),
        (["--against=caffe"], "--against=caffe: must be of torch, monai"),
        (["--compute_dtype="], "--compute_dtype=: must be of float32, bfloat16"),
        (["--convolution=fft"], "--convolution=fft: must be one of auto"),
        (["--rounds=0"], "--rounds=0: must be 1 or more"),
        (["--seconds=3"], "--seconds"),
        (["--against=torch", "--peer_python=/no/such"], "--peer_python=/no/such"),
        (
            ["--against=torch,monai", f"--peer_python={bare}"],
            "has no monai, torch; run `pip install -e '.[benchmark]'` there",
        ),
    ):
        with pytest.raises(BadArguments) as raised:
            speed.main(speed.FLAGS.parse(words))
        assert part in str(raised.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_in_pytorch_has_our_parameters_and_our_logits(name):
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
