"""Every config file: what it changes, what it says of itself, and that it is locked."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from attunet_jax.model import build_network
from attunet_jax.train.state import parameter_count
from configs import base

FOLDER = Path(base.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
# Field by field what each file is for; everything else is as in base.
CHANGES = {
    "base": {},
    "attention_unet": {},
    "attention_unet_published": {
        "model.gating_channels": 256,
        "model.gate_initialisation": "kaiming",
    },
    "unet": {"model.sub_gates": 0},
    "unet_wide": {"model.sub_gates": 0, "model.widths": (16, 33, 67, 134, 268)},
    "unet_huge": {"model.sub_gates": 0, "model.widths": (21, 42, 85, 170, 341)},
    "paper": (
        SILENT := {
            "classes": base.PAPER_CLASSES,
            "model.align_corners": True,
            "data.read_shape": (256, 256, 256),
            "data.padding": "line_minimum",
            "data.normalisation": "scan",
            "augment.normalise_over": "window",
            "loss.reduce_over": "outputs",
            "predict.argmax_over": "outputs",
        }
    ),
    "published": SILENT
    | {
        "model.gating_channels": 256,
        "model.gate_initialisation": "kaiming",
        "loss.smoothing_inside_factor": True,
        "optimizer.name": "sgd",
        "predict.region": "centre_crop",
    },
}


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


def fields_of(config, prefix=""):
    """Value by dotted name."""
    found = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            found |= fields_of(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_the_fields_of_base_with_values_of_the_same_type(name):
    fields, usual = fields_of(config_of(name)), fields_of(config_of("base"))
    assert fields.keys() == usual.keys()
    for field, value in fields.items():
        assert type(value) is type(usual[field]), field
    assert fields["name"] == name


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_changes_exactly_what_it_is_for(name):
    fields, usual = fields_of(config_of(name)), fields_of(config_of("base"))
    changed = {k: v for k, v in fields.items() if v != usual[k] and k != "name"}
    assert changed == CHANGES[name]


def docstring(name):
    return ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""


def parameters_said(name):
    said = re.findall(r"([\d,]+) parameters", docstring(name))
    return [int(number.replace(",", "")) for number in said]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_a_docstring_gives_the_command(name):
    text = " ".join(docstring(name).replace("\\\n", " ").split())
    file = f"configs/{name}.py"
    command = f"python -m launch.train --config={file} --data=DIR --workdir=RUN"
    assert command in text


@pytest.mark.parametrize("name", [name for name in NAMES if parameters_said(name)])
def test_a_number_of_parameters_in_a_docstring_is_exact(name):
    config = config_of(name)
    network = build_network(
        config.model.to_dict(),
        num_classes=4,
        backend="cpu",
        device_count=1,
    )
    image = jax.ShapeDtypeStruct((1, *[2 ** (len(network.widths) - 1)] * 3, 1), "f4")
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), image
    )
    count = parameter_count(variables["params"])
    assert parameters_said(name) == [count] * len(parameters_said(name))


def test_getting_a_config_twice_gives_two():
    one, two = config_of("unet"), config_of("unet")
    one.model.widths = (4, 8)
    assert two.model.widths == (16, 32, 64, 128, 256)
    assert config_of("base").model.sub_gates == 2


def test_a_locked_config_takes_no_unknown_field_and_no_other_type():
    config = config_of("attention_unet")
    config.lock()
    with pytest.raises(AttributeError, match="widht"):
        config.model.widht = 3
    with pytest.raises(TypeError):
        config.train.steps = "many"
    with pytest.raises(TypeError):
        config.model.widths = np.pi


def test_a_program_gets_its_config_locked():
    code = (
        "from launch import cli, train; "
        "cli.run(train.FLAGS, lambda values: print(values.config.is_locked))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
