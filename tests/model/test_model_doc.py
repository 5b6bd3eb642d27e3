"""The tables of docs/model.md are those of the network. They are generated:

python -m pytest tests/model/test_model_doc.py --write-docs
"""

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from attunet_jax.model import AttentionUNet3D, build_network
from attunet_jax.model.torch_weights import published_tensors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"
CONFIGS = (
    "unet",
    "attention_unet",
    "attention_unet_published",
    "unet_wide",
    "unet_huge",
)
# The paper's words for the modules of the network.
PAPER = {
    "encoder": "encoding part",
    "gating_signal": "gating signal g",
    "gate": "attention gate (AG) of the skip connection",
    "supervision": "deep supervision, N_c classes",
}


class Module(NamedTuple):
    name: str  # path in the network
    kind: str  # its class
    output: tuple[int, ...]


@cache
def network(config: str) -> tuple[AttentionUNet3D, dict[str, Any]]:
    """(network, shapes of its parameters) of a config."""
    fields = importlib.import_module(f"configs.{config}").get_config()
    built = build_network(
        fields.model.to_dict() | {"convolution": "compiler"},
        num_classes=4,
        backend="cpu",
        device_count=1,
    )
    image = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), np.float32)
    shapes = jax.eval_shape(
        lambda x: built.init(jax.random.key(0), x, train=False), image
    )
    return built, shapes


@cache
def modules() -> list[Module]:
    """Modules of `attention_unet` as they run on the paper's 160 x 160 x 96 voxels."""
    built, variables = network("attention_unet")
    found = []

    def record(call, args, options, context):
        result = call(*args, **options)
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and path and hasattr(result, "shape"):
            kind = type(context.module).__name__
            found.append(Module(path, kind, result.shape))
        return result

    def forward(variables, image):
        with nn.intercept_methods(record):
            return built.apply(variables, image, train=False)

    image = jax.ShapeDtypeStruct((1, 96, 160, 160, 1), np.float32)
    jax.eval_shape(forward, variables, image)
    return found


def parameters(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def markdown(*lines: list[str]) -> str:
    heading, *rows = lines
    rule = ["---"] * len(heading)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heading, rule, *rows))


def published_name(name: str) -> str:
    """The published module with the parameters of one of ours."""
    params = {name: network("attention_unet")[1]["params"][name]}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    tensors = published_tensors({"params": zeros})
    (module,) = {tensor.split(".")[0] for tensor in tensors}
    return f"`{module}`"


def test_the_table_of_modules_is_the_networks(check_generated):
    params = network("attention_unet")[1]["params"]
    rows = [
        [
            f"`{name}`",
            PAPER.get(re.sub(r"_\d$", "", name), "–"),
            published_name(name),
            f"`{kind}`",
            f"`{list(output)}`",
            f"{parameters(params[name]):,}",
        ]
        for name, kind, output in modules()
        if "/" not in name
    ]
    assert len(rows) == len(params)
    published = parameters(network("attention_unet_published")[1]["params"])
    heading = ["module", "the paper", "published code", "class"]
    heading += ["output `[B, D, H, W, C]`", "parameters"]
    total = ["sum", "6.40 M", f"{published:,}", "", "", f"{parameters(params):,}"]
    check_generated("model.md", "modules", markdown(heading, *rows, total))


def test_the_table_of_a_gates_parameters_is_the_networks(check_generated):
    params = network("attention_unet")[1]["params"]["gate_3"]
    first, second, combine = (
        params[name] for name in ("sub_gate_1", "sub_gate_2", "combine")
    )
    assert parameters(first) == parameters(second)
    rows = []
    for name, tree in ("sub_gate_1", first), ("combine", combine):
        leaves: dict[str, Any] = flatten_dict(tree, sep="/")
        rows += [
            [f"`{name}/{path}`", f"`{list(leaf.shape)}`", f"{leaf.size:,}"]
            for path, leaf in leaves.items()
        ]
    rows.append(["`sub_gate_2`", "as `sub_gate_1`", f"{parameters(second):,}"])
    total = ["sum", "", f"{parameters(params):,}"]
    heading = ["parameter of `gate_3`", "shape", "count"]
    check_generated("model.md", "gate parameters", markdown(heading, *rows, total))


def test_the_table_of_configs_adds_up(check_generated):
    groups = {
        "encoders": "encoder_",
        "`bottleneck`": "bottleneck",
        "`gating_signal`": "gating_",
        "gates": "gate_",
        "decoders": "decoder_",
        "supervision, `fusion`": "[sf]u",
    }
    plain = parameters(network("unet")[1]["params"])
    rows = []
    for config in CONFIGS:
        built, shapes = network(config)
        counts = {name: parameters(tree) for name, tree in shapes["params"].items()}
        each = [
            sum(n for name, n in counts.items() if re.match(group, name))
            for group in groups.values()
        ]
        total = sum(counts.values())
        assert sum(each) == total
        rows.append(
            [
                f"`{config}`",
                ", ".join(map(str, built.widths)),
                *(f"{count:,}" for count in (*each, total)),
                f"{100 * (total / plain - 1):+.1f} %",
            ]
        )
    heading = ["config", "`widths`", *groups, "all", "against `unet`"]
    check_generated("model.md", "configs", markdown(heading, *rows))


def test_shapes_in_the_diagrams_are_those_of_the_modules():
    shapes = {
        module.name.removeprefix("gate_3/sub_gate_1/").removeprefix("gate_3/"): module
        for module in modules()
    }
    boxes = re.findall(r'"(\w+)<br/>([\d×]+)"', PAGE.read_text(encoding="utf-8"))
    checked = 0
    for name, drawn in boxes:
        if name in shapes:
            checked += 1
            assert drawn == "×".join(map(str, shapes[name].output[1:])), name
    assert checked > 20
