"""docs/model.md against the network: every shape, count, arrow and name on the page."""

import ast
import importlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from attunet_jax.model import build_network, gates, unet
from attunet_jax.model.layers import ConvBlock
from attunet_jax.model.torch_weights import published_tensors
from attunet_jax.ops import recompute

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "attunet_jax" / "model"
PAGE = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
SUB_GATE = "gate_3/sub_gate_1"


def table(first: str) -> list[list[str]]:
    """The rows, without backticks, of the table whose first header cell is `first`."""
    lines = PAGE.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.replace("`", "").split("|")[1:-1]])
    assert rows
    return rows


def diagram(number: int) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """(shape by box, arrows as (from, label, to)) of a Mermaid diagram.

    Boxes go by the first line of their text. Whatever is not in the few forms used
    here fails, so that the page holds nothing that GitHub might not draw.
    """
    text = re.findall(r"^```mermaid\n(.*?)^```$", PAGE, re.M | re.S)[number]
    assert text.startswith("flowchart TD\n")
    names, shapes, arrows, depth = {}, {}, [], 0
    for line in filter(None, map(str.strip, text.splitlines()[1:])):
        box = re.fullmatch(r'(\w+)(?:\["([^"]+)"\]|\(\["([^"]+)"\]\))', line)
        arrow = re.fullmatch(r'(\w+) -->(?:\|"([^"]+)"\|)? (\w+)', line)
        if box:
            name, shape = (box[2] or box[3]).split("<br/>")
            assert box[1] not in names and name not in shapes, line
            names[box[1]], shapes[name] = name, shape
        elif arrow:
            arrows.append((names[arrow[1]], arrow[2] or "", names[arrow[3]]))
        elif re.fullmatch(r'subgraph \w+\["[\w/]+"\]', line):
            depth += 1
        else:
            assert line == "end" and depth, line
            depth -= 1
    assert depth == 0
    assert {name for one, _, other in arrows for name in (one, other)} == set(shapes)
    return shapes, arrows


class Trace:
    """What a forward pass computes: steps in their order, by the module they are in.

    Arrays are recognised by identity, which holds while nothing but the recorded
    modules and functions touches them.
    """

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, dict[str, Any]]] = {}
        self.arrows: list[tuple[str, str, str]] = []
        self.known: dict[int, tuple[str, list[tuple[str, str]]]] = {}
        self.kept: list[Any] = []  # an identity is valid while its array lives
        self.modules: list[str] = []

    def name(self, array: Any, name: str, origins: list[tuple[str, str]]) -> None:
        self.known[id(array)] = name, origins
        self.kept.append(array)

    def origins(self, array: Any) -> list[tuple[str, str]]:
        return self.known.get(id(array), ("?", []))[1]

    def step(self, name: str, inputs: list[Any], output: Any, source: Any) -> None:
        scope = self.modules[-1] if self.modules else ""
        file = source.__module__.split(".")[-1] + ".py"
        self.steps.setdefault(scope, {})[name] = {
            "shape": output.shape,
            "input": inputs[0].shape,
            "code": f"{file} {source.__name__}",
        }

    def function(self, label: str, original: Callable) -> Callable:
        def recorded(first, *factor, **options):
            output = original(first, *factor, **options)
            if output is first or self.within_block():  # first: resized by 1
                return output
            inputs = first if isinstance(first, list) else [first]
            texts = [self.known.get(id(x), ("?", []))[0] for x in inputs]
            name = f"{label}({', '.join([*texts, *map(str, factor)])})"
            written = {"upsample": f"upsample ×{factor[0] if factor else ''}"}
            passed = "" if label == "concatenate" else written.get(label, label)
            origins = [(a, passed or b) for x in inputs for a, b in self.origins(x)]
            self.step(name, inputs, output, original)
            self.name(output, name, origins)
            return output

        return recorded

    def within_block(self) -> bool:
        return any(
            m.startswith(("encoder", "bottleneck", "decoder")) for m in self.modules
        )

    def module(self, call: Callable, args: Any, options: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        outer = self.modules[-1] if self.modules else ""
        steps = ("__call__", "without_bias")  # one within the other: once
        if context.method_name not in steps or path in ("", outer):
            return call(*args, **options)
        block = isinstance(context.module, ConvBlock)
        # What a block makes its input of is drawn as steps between the blocks.
        make_input = (block and context.module.make_input) or (
            lambda *arrays: arrays[0]
        )
        given = make_input(*args[0]) if block else None
        self.modules.append(path)
        result = call(*args, **options)
        output = result[0] if context.method_name == "without_bias" else result
        self.modules.pop()
        inputs = [given] if block else [x for x in args if hasattr(x, "shape")]
        self.step(path.removeprefix(f"{outer}/"), inputs, output, type(context.module))
        for place, x in enumerate(inputs):
            for origin, label in self.origins(x) if not outer else ():
                port = "xg"[place] if path.startswith("gate_") else label
                self.arrows.append((origin, port, path))
        self.name(output, path, [(path, "")])
        return result


@cache
def network(config: str) -> tuple[Any, Any]:
    """(network, its parameters' shapes) of a config."""
    fields = importlib.import_module(f"configs.{config}").get_config()
    built = build_network(
        fields.model.to_dict(),
        num_classes=len(fields.classes),
        backend="cpu",
        device_count=1,
    )
    image = jax.ShapeDtypeStruct((1, *fields.data.crop_shape, 1), np.float32)
    shapes = jax.eval_shape(
        lambda x: built.init(jax.random.key(0), x, train=False), image
    )
    return built, shapes


@cache
def traced() -> Trace:
    """The pass of `attention_unet` over the paper's 160 x 160 x 96 voxels."""
    built, shapes = network("attention_unet")
    trace = Trace()

    def forward(variables, image):
        trace.name(image, "image", [("image", "")])
        with nn.intercept_methods(trace.module):
            logits = built.apply(variables, image, train=False)
        trace.arrows += [(a, b, "logits") for a, b in trace.origins(logits)]
        trace.steps[""]["logits"] = {"shape": logits.shape}
        return logits

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (unet, "max_pool_2x2x2"),
            (unet, "upsample"),
            (recompute, "upsample"),
            (gates, "upsample"),
            (recompute, "concatenate"),
            (gates, "concatenate"),
            (nn, "relu"),
            (nn, "sigmoid"),
        ):
            patch.setattr(owner, name, trace.function(name, getattr(owner, name)))
        image = jax.ShapeDtypeStruct((1, 96, 160, 160, 1), np.float32)
        jax.eval_shape(forward, shapes, image)
    return trace


def parameters(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def drawn(shape: tuple[int, ...]) -> str:
    """As the diagrams write it: without the batch."""
    return "×".join(map(str, shape[1:]))


def test_the_table_of_steps_is_what_the_network_computes_in_its_order():
    params = network("attention_unet")[1]["params"]
    expected = []
    for name, step in traced().steps[""].items():
        if name == "logits":
            continue
        tensors = published_tensors(
            {
                "params": {
                    name: jax.tree.map(lambda _: np.zeros(1), params.get(name, {}))
                }
            }
        )
        published = "/".join(sorted({tensor.split(".")[0] for tensor in tensors}))
        count = f"{parameters(params.get(name, {})):,}"
        shape = str(list(step["shape"]))
        expected.append([name, published or "–", step["code"], shape, count])
    *rows, total = table("step")
    assert [[row[0], *row[2:]] for row in rows] == expected
    assert {name for name, *_ in expected} >= set(params)
    assert total[0] == "sum"
    published = parameters(network("attention_unet_published")[1]["params"])
    assert (total[2], total[5]) == (f"{published:,}", f"{parameters(params):,}")
    assert sum(int(row[5].replace(",", "")) for row in rows) == parameters(params)


def test_the_arrows_of_figure_1_are_the_ways_of_the_data():
    shapes, arrows = diagram(0)
    assert sorted(arrows) == sorted(traced().arrows)
    steps = traced().steps[""]
    expected = {k: drawn(v["shape"]) for k, v in steps.items() if "(" not in k}
    assert shapes == {"image": "96×160×160×1"} | expected


def test_the_boxes_of_figure_2_have_the_shapes_of_gate_3():
    shapes, arrows = diagram(1)
    steps = traced().steps
    outer, inner = steps["gate_3"], steps[SUB_GATE]
    resized = [step for name, step in inner.items() if name.startswith("upsample(")]
    assert len(resized) == 1  # alpha; phi already has the grid of theta
    (relu,), (sigmoid,) = (
        [step for name, step in inner.items() if name.startswith(f"{function}(")]
        for function in ("relu", "sigmoid")
    )
    expected = {
        "x: encoder_3": steps[""]["encoder_3"]["shape"],
        "g: decoder_4": steps[""]["decoder_4"]["shape"],
        "relu(theta + phi)": relu["shape"],
        "sigmoid(q)": sigmoid["shape"],
        "upsample(alpha, 2)": resized[0]["shape"],
        "alpha * x": inner["W"]["input"],
        "sub_gate_2": outer["sub_gate_2"]["shape"],
        "combine": outer["combine"]["shape"],
    } | {k: inner[k]["shape"] for k in ("W_x", "W_g", "psi", "W", "norm")}
    assert shapes == {name: drawn(shape) for name, shape in expected.items()}
    assert ("x: encoder_3", "", "W_x") in arrows
    assert ("g: decoder_4", "", "W_g") in arrows


def test_every_name_in_the_diagrams_is_a_module_or_a_name_of_the_code():
    paths = flatten_dict(network("attention_unet")[1]["params"])
    known = {part for path in paths for part in path}
    for file in ("unet.py", "gates.py"):
        for node in ast.walk(ast.parse((MODEL / file).read_text(encoding="utf-8"))):
            known |= {node.id} if isinstance(node, ast.Name) else set()
            known |= {node.attr} if isinstance(node, ast.Attribute) else set()
            known |= {node.arg} if isinstance(node, ast.arg) else set()
    frames = re.findall(r'subgraph \w+\["([^"]+)"\]', PAGE)
    assert frames == [SUB_GATE]
    texts = frames
    for number in (0, 1):
        shapes, arrows = diagram(number)
        texts = [*texts, *shapes, *(label for _, label, _ in arrows)]
    used = {name for text in texts for name in re.findall(r"[A-Za-z_]\w*", text)}
    assert used <= known, used - known


def test_the_table_of_symbols_lists_every_parameter_of_a_sub_gate_and_of_combine():
    params: Any = network("attention_unet")[1]["params"]["gate_3"]
    gate: dict[str, Any] = flatten_dict(params, sep="/")
    expected = {
        path: [str(list(leaf.shape)), f"{leaf.size:,}"]
        for path, leaf in gate.items()
        if not path.startswith("sub_gate_2/")
    }
    steps = traced().steps
    inner = steps[SUB_GATE]
    (alpha,) = (step for name, step in inner.items() if name.startswith("upsample("))
    arrays = {
        "x": steps[""]["encoder_3"]["shape"],
        "g": steps[""]["decoder_4"]["shape"],
        "theta": inner["W_x"]["shape"],
        "phi": inner["W_g"]["shape"],
        "q": inner["psi"]["shape"],
        "alpha": alpha["shape"],
        "gated": inner["W"]["input"],
    }
    expected |= {name: [str(list(shape)), "–"] for name, shape in arrays.items()}
    rows = table("symbol")
    assert {row[1]: row[2:] for row in rows} == expected and len(rows) == len(expected)


def test_every_gate_has_the_inputs_that_the_table_of_gates_names():
    arrows = traced().arrows
    for gate, x, g, _ in table("gate"):
        if gate == "none":
            assert (x, "", "decoder_1") in arrows and g == "–"
        else:
            assert (x, "x", gate) in arrows and (g, "g", gate) in arrows


def test_the_parameters_of_the_five_configs_add_up_as_written():
    plain = parameters(network("unet")[1]["params"])
    rows = table("config")
    assert {row[0] for row in rows} == {
        "unet",
        "attention_unet",
        "attention_unet_published",
        "unet_wide",
        "unet_huge",
    }
    for config, *cells in rows:
        built, shapes = network(config)
        counts = {name: parameters(tree) for name, tree in shapes["params"].items()}
        groups = ("encoder_", "bottleneck", "gating_", "gate_", "decoder_", "[sf]u")
        each = [
            sum(n for name, n in counts.items() if re.match(group, name))
            for group in groups
        ]
        total = sum(counts.values())
        assert sum(each) == total
        assert cells == [
            ", ".join(map(str, built.widths)),
            *(f"{count:,}" for count in (*each, total)),
            f"{100 * (total / plain - 1):+.1f} %",
        ]


def test_numbers_in_the_sentences_are_those_of_the_network():
    params = network("attention_unet")[1]["params"]
    published = network("attention_unet_published")[1]["params"]
    gate = params["gate_3"]
    whole = parameters(gate)
    assert whole == 2 * parameters(gate["sub_gate_1"]) + parameters(gate["combine"])
    more = [
        parameters(published[name]) - parameters(params[name])
        for name in ("gating_signal", "gate_4")
    ]
    assert sum(more) == parameters(published) - parameters(params)
    for sentence in (
        f"`gate_3` has {whole:,} parameters",
        f"{more[0]:,} parameters in `gating_signal` and {more[1]:,} in the two `W_g`",
        f"sigmoid({gates.PASS_THROUGH_BIAS:.0f}) = "
        f"{1 / (1 + np.exp(-gates.PASS_THROUGH_BIAS)):.3f}",
    ):
        assert sentence in " ".join(PAGE.split())


def test_every_test_that_the_page_names_by_function_exists():
    text = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert named and all(f"def {name}(" in text for name in named)
