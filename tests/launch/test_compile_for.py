"""The train step compiled for devices that are not here."""

import importlib.util
import re

import pytest

from attunet_jax.errors import BadArguments
from launch.compile_for import Topology, environment_of, parse_topology


@pytest.mark.parametrize(
    "name, expected, count",
    [
        ("cpu:2x4", Topology("cpu:2x4", "cpu", (2, 4)), 8),
        ("v5e:2x4", Topology("v5e:2x4", "v5e", (2, 4)), 8),
        ("v5p:2x2x1", Topology("v5p:2x2x1", "v5p", (2, 2, 1)), 4),
    ],
)
def test_a_topology_is_its_platform_and_sizes(name, expected, count):
    assert parse_topology(name) == expected
    assert parse_topology(name).count == count


@pytest.mark.parametrize("name", ["cpu:8", "cpu:0x8", "8", "v5e", "v5e:2*4", "gpu:1x8"])
def test_what_is_no_topology_is_refused_with_an_example_of_each(name):
    with pytest.raises(BadArguments, match=rf"{re.escape(name)} .*cpu:1x8.*v5e:2x4"):
        parse_topology(name)


def test_accelerator_types_count_chips_or_cores_as_google_does():
    def kind(name):
        return environment_of(parse_topology(name))["TPU_ACCELERATOR_TYPE"]

    assert kind("v5e:2x4") == "v5litepod-8"
    assert kind("v6e:2x4") == "v6e-8"
    assert kind("v4:2x2x1") == "v4-8"
    assert kind("v5p:2x2x1") == "v5p-8"


def test_programs_are_compiled_anew_since_kept_ones_do_not_tell_their_memory():
    for name in ("cpu:1x8", "v5e:2x4"):
        environment = environment_of(parse_topology(name))
        assert environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"


def test_the_compiler_of_tpus_that_is_not_installed_is_named(refused):
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("libtpu is installed here")
    status, line = refused("launch.compile_for", "--topology=v5e:2x4")
    assert status == 2 and "pip install -e '.[tpu]'" in line


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
