"""The train step compiled for devices that are not here."""

import importlib.util
import re
from importlib.metadata import version

import pytest

from attunet_jax.errors import BadArguments
from launch.compile_for.cards import described, read_card
from launch.compile_for.topology import (
    Topology,
    check_compiler,
    environment_of,
    parse_topology,
)


@pytest.mark.parametrize(
    "name, expected, count",
    [
        ("cpu:2x4", Topology("cpu:2x4", "cpu", (2, 4)), 8),
        ("v5e:2x4", Topology("v5e:2x4", "v5e", (2, 4)), 8),
        ("v5p:2x2x1", Topology("v5p:2x2x1", "v5p", (2, 2, 1)), 4),
        ("h100:8", Topology("h100:8", "h100", (8,)), 8),
        ("B200:4x8", Topology("B200:4x8", "b200", (4, 8)), 32),
    ],
)
def test_a_topology_is_its_platform_and_sizes(name, expected, count):
    assert parse_topology(name) == expected
    assert parse_topology(name).count == count


def test_what_is_no_topology_is_refused_with_an_example_of_each():
    for name in (
        *("cpu:8", "cpu:0x8", "8", "v5e", "v5e:2*4", "gpu:1x8", "h100"),
        *("v100:8", "h100:2x4x8", "h100:0", "h100:8x", "../h100:8", "rtx5090:1"),
    ):
        expected = rf"{re.escape(name)} .*cpu:1x8.*v5e:2x4.*h100:8.*a100, b200, h100"
        with pytest.raises(BadArguments, match=expected):
            parse_topology(name)


def test_a_host_of_gpus_is_the_first_of_two_sizes():
    assert (parse_topology("h200:8").hosts, parse_topology("h200:4x8").hosts) == (1, 4)
    card = parse_topology("h200:4x8").card
    assert card is not None and card.name == "NVIDIA H200"
    assert parse_topology("cpu:1x8").card is None


def test_a_card_is_described_to_xla_by_the_figures_of_its_data_sheet():
    assert described() == ["a100", "b200", "h100", "h200"]
    told = {}
    for name in described():
        card = read_card(name)
        told[name] = dict(re.findall(r"(?m)^(\w+): (\S+)$", card.target))
        # A tensor core does more in bfloat16 than in TF32; the device has a name.
        assert card.dense_flop_per_s["bfloat16"] > card.dense_flop_per_s["float32"]
        assert f'device_description_str: "{card.name}"' in card.target
    h100, a100 = told["h100"], told["a100"]
    assert h100["memory_bandwidth"] == str(3_350_000_000_000)
    assert (h100["core_count"], a100["core_count"]) == ("132", "108")
    assert a100["shared_memory_per_core"] == str(164 * 1024)
    assert "major: 9 minor: 0 feature_extension: ACCEL" in read_card("h100").target
    assert "major: 8 minor: 0 feature_extension: NONE" in read_card("a100").target
    # The peak in float32 without tensor cores: two operations a clock and unit.
    assert 2 * 128 * 132 * float(h100["clock_rate_ghz"]) / 1e3 == pytest.approx(
        67, 0.01
    )
    assert 2 * 64 * 108 * float(a100["clock_rate_ghz"]) / 1e3 == pytest.approx(
        19.5, 0.01
    )


def test_accelerator_types_count_chips_or_cores_as_google_does():
    def kind(name):
        return environment_of(parse_topology(name))["TPU_ACCELERATOR_TYPE"]

    assert kind("v5e:2x4") == "v5litepod-8"
    assert kind("v6e:2x4") == "v6e-8"
    assert kind("v4:2x2x1") == "v4-8"
    assert kind("v5p:2x2x1") == "v5p-8"


def test_programs_are_compiled_anew_since_kept_ones_do_not_tell_their_memory():
    for name in ("cpu:1x8", "v5e:2x4", "h100:8"):
        environment = environment_of(parse_topology(name))
        assert environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"


def test_the_compiler_of_tpus_that_is_not_installed_is_named(refused):
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("libtpu is installed here")
    status, line = refused("launch.compile_for", "--topology=v5e:2x4")
    assert status == 2 and "pip install -e '.[tpu]'" in line


def _install(folder, monkeypatch, **packages):
    """Puts packages of these versions, without contents, where Python finds them."""
    for name, its_version in packages.items():
        info = folder / f"{name}-{its_version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {its_version}\n"
        (info / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(folder)


def test_the_compiler_of_gpus_that_is_not_installed_is_named(refused):
    if importlib.util.find_spec("jax_plugins") is not None:
        pytest.skip("JAX's plug-in for CUDA is installed here")
    status, line = refused("launch.compile_for", "--topology=h100:8")
    assert status == 2 and "pip install -e '.[compile_gpu]'" in line


def test_a_plugin_of_another_version_than_jaxlib_is_refused(tmp_path, monkeypatch):
    own = version("jaxlib")
    topology = parse_topology("h100:8")
    parts = {"jax_cuda13_plugin": "0.0.1", "jax_cuda13_pjrt": own}
    _install(tmp_path / "old", monkeypatch, **parts, nvidia_cuda_nvcc="13.0.0")
    mend = f"jax-cuda13-plugin is 0.0.1, .*pip install jax-cuda13-plugin=={own} "
    with pytest.raises(BadArguments, match=mend):
        check_compiler(topology)
    _install(tmp_path / "right", monkeypatch, jax_cuda13_plugin=own)
    check_compiler(topology)


def test_a_plugin_without_the_assembler_of_cuda_is_refused(tmp_path, monkeypatch):
    own = version("jaxlib")
    monkeypatch.setenv("PATH", str(tmp_path))
    parts = {"jax_cuda13_plugin": own, "jax_cuda13_pjrt": own}
    _install(tmp_path / "half", monkeypatch, **parts)
    with pytest.raises(BadArguments, match=r"\.\[compile_gpu\]"):
        check_compiler(parse_topology("h100:8"))
    _install(tmp_path / "whole", monkeypatch, nvidia_cuda_nvcc="13.0.0")
    check_compiler(parse_topology("h100:8"))


def test_what_asks_for_the_impossible_is_refused_before_anything_is_compiled(refused):
    for words, expected in (
        (("--topology=h100:2x4", "--config.mesh.spatial=8"), "between 2 hosts of 4"),
        (("--topology=cpu:1x1", "--kernels=9"), "--kernels"),
        (("--topology=cpu:1x1", "--hlo=absent/step.hlo"), "--hlo=absent/step.hlo"),
    ):
        status, line = refused("launch.compile_for", *words)
        assert status == 2 and expected in line


def test_a_depth_that_the_mesh_does_not_divide_is_refused(refused):
    words = ("--topology=cpu:1x8", "--config.data.crop_shape=64,32,32")
    status, line = refused("launch.compile_for", *words)
    assert status == 2 and "(64) must be divisible by 128" in line


def test_a_mesh_of_two_is_compiled_without_data_and_its_needs_are_told(
    run_program, finish
):
    status, output, errors = finish(
        run_program(
            "launch.compile_for",
            "--topology=cpu:1x2",
            "--config=configs/unet.py",
            "--config.model.widths=(2,3)",
            "--config.classes=background,liver",
            "--config.model.deep_supervision=none",
            "--config.data.crop_shape=8,16,16",
            "--config.data.batch_size=1",
        )
    )
    assert (status, errors) == (0, "")
    told = dict(re.split(r"  +", line, maxsplit=1) for line in output.splitlines()[1:9])
    assert told["topology"].startswith("cpu:1x2, 2 x simulated CPU device")
    assert told["mesh"] == "data 1  spatial 2"
    assert told["batch"] == "1 of 8x16x16, read as 8x16x16"
    # 3^3 convolutions with biases, each with a norm's scale and bias; 1^3 to 2 classes.
    convolutions = [(1, 2), (2, 2), (2, 3), (3, 3), (5, 2), (2, 2)]
    parameters = sum(27 * i * o + 3 * o for i, o in convolutions) + 2 * 2 + 2
    assert told["network"].startswith(f"{parameters:,} parameters, float32")
    assert re.match(
        r"[\d.]+ MiB: arguments [\d.]+, temporaries", told["memory a device"]
    )
    assert re.match(r"\d+ a step, [\d.]+ MiB a device", told["collective-permute"])
    assert "all-gather" not in output
    assert "never what a TPU or GPU needs" in output


@pytest.mark.cluster
def test_kernels_bytes_and_the_least_time_are_told_for_gpus(
    run_program, finish, tmp_path
):
    try:
        check_compiler(parse_topology("h100:2"))
    except BadArguments as reason:
        pytest.skip(str(reason))
    file = tmp_path / "step.hlo"
    status, output, errors = finish(
        run_program(
            "launch.compile_for",
            "--topology=h100:2",
            "--config=configs/unet.py",
            "--config.model.widths=(2,3)",
            "--config.classes=background,liver",
            "--config.data.crop_shape=8,16,16",
            "--kernels=3",
            f"--hlo={file}",
        )
    )
    assert (status, errors) == (0, "")
    assert re.search(r"(?m)^topology +h100:2, 2 x NVIDIA H100 80GB HBM3$", output)
    assert re.search(r"(?m)^kernels +\d+ a step, \d+ of them move less", output)
    assert re.search(r"(?m)^all-reduce +\d+ a step", output)
    assert re.search(r"(?m)^time at least .* 3\.02 TB/s", output)
    for part in ("convolutions", "normalisation", "optimizer", "augmentation", "loss"):
        assert re.search(rf"(?m)^ +[\d.]+ +[\d.]+% .*{part}", output)
    listed = output.partition("kernel | part | operation\n")[2].partition("\n\n")[0]
    assert len(listed.splitlines()) == 3
    assert "ENTRY" in file.read_text()
    assert "cuDNN's workspaces" in output


def test_the_forward_pass_is_compiled_and_told_as_such(run_program, finish):
    status, output, errors = finish(
        run_program(
            "launch.compile_for",
            "--topology=cpu:1x1",
            "--program=forward",
            "--config=configs/unet.py",
            "--config.model.widths=(2,3)",
            "--config.classes=background,liver",
            "--config.model.convolution=compiler",
            "--config.data.crop_shape=64,64,64",
            "--config.data.batch_size=1",
        )
    )
    assert (status, errors) == (0, "")
    told = re.search(r"(?m)^work a device +([\d.]+) GFLOP a pass$", output)
    # Six 3x3x3 convolutions, two operations a weight and voxel; borders need fewer.
    fine, coarse = 64**3, 32**3
    flop = 2 * 27 * (fine * (1 * 2 + 2 * 2 + 5 * 2 + 2 * 2) + coarse * (2 * 3 + 3 * 3))
    assert told and 0.9 * flop < float(told[1]) * 1e9 < 1.5 * flop
