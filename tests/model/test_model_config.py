"""Fields of the model group that make a network, and those that are refused."""

import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.model import build_network, check_divisible
from attunet_jax.ops.cpu import onednn_probe
from configs import base

FIELDS = base.get_config().model.to_dict()


def build(backend="cpu", device_count=1, **changes):
    return build_network(
        FIELDS | changes, num_classes=4, backend=backend, device_count=device_count
    )


def test_a_network_carries_the_fields_as_they_were_given():
    network = build(widths=[4, 8], sub_gates=3, convolution="compiler")
    assert network.widths == (4, 8)
    assert network.sub_gates == 3
    assert network.num_classes == 4
    assert network.convolution == "compiler"
    hash(network)  # jit needs it


@pytest.mark.parametrize(
    "backend, device_count, expected",
    [
        ("cpu", 1, "matrix"),  # as on a processor without oneDNN
        ("cpu", 8, "compiler"),
        ("gpu", 1, "channels_last"),
        ("tpu", 4, "compiler"),
    ],
)
def test_auto_is_matrix_on_one_cpu_device_only(
    monkeypatch, backend, device_count, expected
):
    monkeypatch.setattr(onednn_probe, "available", lambda dtype: False)
    assert build(backend, device_count).convolution == expected
    forced = build(backend, device_count, convolution="matrix")
    assert forced.convolution == "matrix"


@pytest.mark.parametrize("backend, there", [("gpu", True), ("cpu", False)])
def test_onednn_is_refused_where_it_is_not_available(monkeypatch, backend, there):
    monkeypatch.setattr(onednn_probe, "available", lambda dtype: there)
    with pytest.raises(BadArguments, match="=onednn: is not available here.*auto"):
        build(backend, convolution="onednn")


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("gate_source", "encoder", "decoder, bottleneck"),
        ("gate_kernel", 3, "1, 2"),
        ("attention_coefficients", "matrix", "scalar, vector"),
        ("gate_initialisation", "zeros", "pass_through, kaiming"),
        ("deep_supervision", True, "fused, auxiliary, none"),
        ("compute_dtype", "float16", "float32, bfloat16"),
        ("convolution", "cudnn", "auto, compiler, channels_last, matrix, onednn"),
    ],
)
def test_a_value_that_is_no_choice_is_named_with_those_there_are(field, value, allowed):
    with pytest.raises(BadArguments) as caught:
        build(**{field: value})
    typed = str(value).lower() if isinstance(value, bool) else value
    message = f"--config.model.{field}={typed}: must be one of {allowed}"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "field, value",
    [
        ("widths", (16,)),
        ("widths", (16, 0)),
        ("widths", ()),
        ("sub_gates", -1),
        ("gating_channels", -1),
        ("gate_reduction", 0),
    ],
)
def test_a_number_out_of_range_is_named(field, value):
    with pytest.raises(BadArguments, match=f"--config.model.{field}="):
        build(**{field: value})


@pytest.mark.parametrize("shape", [(96, 160, 160), (16, 16, 16), (16, 32, 48)])
def test_shapes_that_four_halvings_divide_pass(shape):
    check_divisible("--config.data.crop_shape", shape, (16, 32, 64, 128, 256))


@pytest.mark.parametrize("shape", [(96, 160, 168), (8, 16, 16), (0, 16, 16)])
def test_other_shapes_are_refused_with_field_and_divisor(shape):
    with pytest.raises(BadArguments) as caught:
        check_divisible("--config.data.crop_shape", shape, (16, 32, 64, 128, 256))
    assert str(caught.value) == (
        f"--config.data.crop_shape={','.join(map(str, shape))}: each size must be "
        "divisible by 16, for 5 scales"
    )
