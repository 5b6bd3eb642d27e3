"""Weights of the authors' networks: taken over exactly, or refused by tensor."""

import pickle
import sys
import zipfile
from typing import Any

import jax
import numpy as np
import pytest

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.model import build_network
from attunet_jax.model.torch_weights import (
    channels_last,
    from_published,
    read_state_dict,
    to_published,
)
from configs import base

ALL_GOLDEN = [f"{n}_align{a}" for n in ("multi_att", "single_att", "dsv") for a in "01"]


def published_shapes(sub_gates: int = 2) -> dict[str, tuple[int, ...]]:
    """The state dict of a network with widths 2, 3, 4, gating 5 and 6 classes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, size: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into, size, size, size)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def twice(name: str, out: int, into: int) -> None:
        conv(f"{name}.conv1.0", out, into, 3)
        norm(f"{name}.conv1.1", out)
        conv(f"{name}.conv2.0", out, out, 3)
        norm(f"{name}.conv2.1", out)

    twice("conv1", 2, 1)
    twice("conv2", 3, 2)
    twice("center", 4, 3)
    if sub_gates:
        conv("gating.conv1.0", 5, 4, 1)
        norm("gating.conv1.1", 5)
        for gate in (f"attentionblock2.gate_block_{i + 1}" for i in range(sub_gates)):
            conv(f"{gate}.theta", 3, 3, 2, bias=False)
            conv(f"{gate}.phi", 3, 5, 1)
            conv(f"{gate}.psi", 1, 3, 1)
            conv(f"{gate}.W.0", 3, 3, 1)
            norm(f"{gate}.W.1", 3)
        conv("attentionblock2.combine_gates.0", 3, 3 * sub_gates, 1)
        norm("attentionblock2.combine_gates.1", 3)
    twice("up_concat2.conv", 3, 7)
    twice("up_concat1.conv", 2, 5)
    conv("dsv1", 6, 2, 1)
    conv("dsv2.dsv.0", 6, 3, 1)
    conv("final", 6, 12, 1)
    return shapes


def published(sub_gates: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        if not name.endswith("tracked")
        else np.zeros((), np.int64)
        for name, shape in published_shapes(sub_gates).items()
    }


@pytest.mark.parametrize("sub_gates", [0, 1, 2, 3])
def test_there_and_back_every_tensor_is_the_same_bit_for_bit(sub_gates):
    state = published(sub_gates)
    variables, fields, num_classes = from_published(state, "weights.npz")
    assert (fields["widths"], fields["sub_gates"], num_classes) == (
        (2, 3, 4),
        sub_gates,
        6,
    )
    back = to_published(variables)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_the_fields_build_the_network_whose_variables_these_are():
    variables, fields, num_classes = from_published(published(), "weights.npz")
    assert fields["gating_channels"] == 5
    network = build_network(
        base.get_config().model.to_dict() | fields,
        num_classes=num_classes,
        backend="cpu",
        device_count=1,
    )
    image = np.zeros((1, 4, 4, 8, 1), np.float32)
    expected: Any = jax.eval_shape(
        lambda: network.init(jax.random.key(0), image, train=False)
    )
    for kind in ("params", "batch_stats"):
        got, there = (
            jax.tree.map(np.shape, tree[kind]) for tree in (variables, expected)
        )
        assert got == there


def test_a_kernel_turns_from_out_in_x_y_z_to_z_y_x_in_out():
    state = published()
    variables, _, _ = from_published(state, "weights.npz")
    params, stats = variables["params"], variables["batch_stats"]
    kernel = params["encoder_2"]["conv_1"]["kernel"]
    assert kernel.shape == (3, 3, 3, 2, 3)
    tensor = state["conv2.conv1.0.weight"]
    for out, into, x, y, z in np.ndindex(tensor.shape):
        assert kernel[z, y, x, into, out] == tensor[out, into, x, y, z]
    for ours, theirs in (
        (stats["decoder_1"]["norm_2"]["var"], "up_concat1.conv.conv2.1.running_var"),
        (params["decoder_1"]["norm_2"]["scale"], "up_concat1.conv.conv2.1.weight"),
        (params["bottleneck"]["conv_2"]["bias"], "center.conv2.0.bias"),
        (
            params["gate_2"]["sub_gate_2"]["psi"]["bias"],
            "attentionblock2.gate_block_2.psi.bias",
        ),
    ):
        np.testing.assert_array_equal(ours, state[theirs])


def test_an_activation_turns_from_channel_x_y_z_to_z_y_x_channel_and_back():
    x = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    turned = channels_last(x)
    assert turned[1, 5, 4, 3, 2] == x[1, 2, 3, 4, 5]
    np.testing.assert_array_equal(channels_last(turned), x)


def test_what_is_taken_over_is_a_copy():
    state = published()
    variables, _, _ = from_published(state, "weights.npz")
    before = variables["params"]["fusion"]["bias"].copy()
    state["final.bias"][:] = 7
    np.testing.assert_array_equal(variables["params"]["fusion"]["bias"], before)


def refusal(state: Any) -> str:
    with pytest.raises(BadData) as caught:
        from_published(state, "weights.npz")
    message = str(caught.value)
    assert message.startswith("weights.npz: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    [
        "conv1.conv1.0.weight",
        "center.conv1.0.weight",
        "gating.conv1.0.weight",
        "final.weight",
        "conv2.conv2.1.running_var",
        "attentionblock2.gate_block_2.psi.bias",
    ],
)
def test_a_missing_an_empty_and_a_misshapen_tensor_are_named(name):
    state = published()
    tensor = state[name]
    assert f"tensor {name} is missing" in refusal(
        {k: v for k, v in state.items() if k != name}
    )
    for wrong in (tensor[..., None], np.float32(1), tensor[:0]):
        said = refusal(state | {name: wrong})
        assert f"tensor {name} has shape {np.shape(wrong)}, expected" in said


def test_a_surplus_tensor_is_named_and_several_are_counted():
    more = {"aside.weight": np.zeros(3), "beside.weight": np.zeros(3)}
    said = refusal(published() | more)
    assert "tensor aside.weight is surplus (and 1 more)" in said
    # A module of another network of the authors is surplus too.
    attention = {k: v for k, v in published().items() if k.startswith("gating")}
    assert "tensor gating.conv1.0.bias is surplus" in refusal(published(0) | attention)


def test_the_state_dict_of_another_program_names_the_first_tensor_it_lacks():
    said = refusal({"model.0.conv.weight": np.zeros((2, 1, 3, 3, 3))})
    assert "tensor conv1.conv1.0.weight is missing" in said
    assert "unet_CT_multi_att_dsv_3D" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_refused(value):
    state = published()
    state["dsv1.bias"][3] = value
    assert "dsv1.bias holds NaN or infinity" in refusal(state)


def test_whole_numbers_are_no_weights():
    state = published() | {"dsv1.bias": np.arange(6)}
    assert "dsv1.bias is int64" in refusal(state)


def test_a_network_that_the_published_code_cannot_build_is_refused():
    fields = base.get_config().model.to_dict() | {
        "widths": (2, 3, 4),
        "gate_output_transform": False,
    }
    network = build_network(fields, num_classes=3, backend="cpu", device_count=1)
    image = np.zeros((1, 4, 4, 4, 1), np.float32)
    shapes: Any = jax.eval_shape(
        lambda: network.init(jax.random.key(0), image, train=False)
    )
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(BadArguments, match="W.0.bias is missing.*output_transform"):
        to_published(variables)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.npz"


def unreadable(path) -> str:
    with pytest.raises(BadData) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_an_npz_gives_its_tensors_by_name_with_or_without_the_prefix(file):
    state = published()
    np.savez(file, **state)  # pyright: ignore[reportArgumentType]
    plain = read_state_dict(file)
    assert plain.keys() == state.keys()
    named = {f"w:{k}": v for k, v in state.items()} | {"input": np.zeros(3)}
    np.savez(file, **named)  # pyright: ignore[reportArgumentType]
    chosen = read_state_dict(file)
    assert chosen.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(plain[name], tensor)
        np.testing.assert_array_equal(chosen[name], tensor)


def test_a_file_that_is_not_there_or_cut_short_is_named(file):
    assert "no such file" in unreadable(file)
    np.savez_compressed(file, **published())  # pyright: ignore[reportArgumentType]
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert "cannot be read as .npz" in unreadable(file)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(file):
    np.savez_compressed(file, a=np.random.default_rng(0).normal(size=200))
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        file.write_bytes(changed)
        try:
            arrays = read_state_dict(file)
        except BadData:
            refused += 1
            continue
        file.write_bytes(whole)
        for array, original in zip(
            arrays.values(), read_state_dict(file).values(), strict=True
        ):
            np.testing.assert_array_equal(array, original)
    assert refused > 200


class Payload:
    """Writes a file if anything ever unpickles it."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_refused_unopened_in_whatever_wrapping(file, tmp_path):
    trap = tmp_path / "executed"
    payload = pickle.dumps({"final.weight": Payload(trap)})
    file.write_bytes(payload)
    assert "cannot be read as .npz" in unreadable(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", payload)  # what torch.save writes
    with pytest.raises(BadData, match="tensor conv1.conv1.0.weight is missing"):
        from_published(read_state_dict(file), str(file))
    np.savez(file, a=np.array([Payload(trap), None], object))
    assert "cannot be read as .npz" in unreadable(file)
    assert not trap.exists()


def test_a_single_array_under_the_name_npz_is_refused(file):
    with file.open("wb") as out:
        np.save(out, np.zeros(3))
    assert "cannot be read as .npz" in unreadable(file)


def test_without_torch_a_pth_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"anything")
    with pytest.raises(BadArguments, match="weights.pth.*pip install torch"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ALL_GOLDEN)
def test_the_authors_networks_are_taken_over_whole(shared, name):
    path = shared / "golden" / f"published_{name}.npz"
    state = read_state_dict(path)
    variables, fields, num_classes = from_published(state, str(path))
    assert (fields["widths"], num_classes) == ((2, 4, 8, 16, 32), 4)
    gates = {"multi_att": 2, "single_att": 1, "dsv": 0}
    assert fields["sub_gates"] == gates[name.split("_align")[0]]
    with np.load(path) as golden:
        expected = int(golden["trainable_parameters"])
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == expected
    back = to_published(variables)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[k], v) for k, v in state.items() if v.ndim)
