"""The public names: imported late, with the paper's defaults, usable in a few lines."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attunet_jax as aj
from configs import base

ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_imports_no_jax_and_lists_its_names():
    code = (
        "import sys, attunet_jax as aj\n"
        "assert not {'jax', 'flax', 'numpy', 'nibabel'} & set(sys.modules)\n"
        "assert set(dir(aj)) == set(aj.__all__), dir(aj)\n"
        "assert aj.__version__.count('.') == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_is_there_and_documented():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in aj.__all__:
        assert f"aj.{name}" in page, f"docs/python.md does not show aj.{name}"
        if name != "__version__":
            assert inspect.getdoc(getattr(aj, name)), name
    with pytest.raises(AttributeError, match="no attribute 'UNet2D'"):
        _ = aj.UNet2D  # pyright: ignore


def test_the_networks_defaults_are_those_of_the_base_config():
    model = base.get_config().model.to_dict()
    renamed = {"compute_dtype": "dtype"}
    expected = {renamed.get(name, name): value for name, value in model.items()}
    expected["dtype"] = jnp.dtype(expected["dtype"])
    network = aj.AttentionUNet3D(num_classes=4)
    fields = {
        field.name: getattr(network, field.name)
        for field in dataclasses.fields(network)
        if field.name not in ("num_classes", "parent", "name")
    }
    fields["dtype"] = jnp.dtype(fields["dtype"])
    assert fields == expected


def test_the_losss_defaults_are_those_of_the_base_config():
    loss = base.get_config().loss
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(aj.soft_dice_loss).parameters.items()
    }
    for name in ("smoothing", "smoothing_inside_factor", "include_background"):
        assert defaults[name] == loss[name]


@pytest.mark.parametrize(
    "network, count", [("AttentionUNet3D", 6_407_402), ("UNet3D", 5_888_004)]
)
def test_the_papers_networks_have_the_papers_numbers_of_parameters(network, count):
    image = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
    module = getattr(aj, network)(num_classes=4)
    variables = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, train=False), image
    )
    sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
    assert sum(sizes) == count


def test_a_network_is_initialised_applied_and_its_loss_taken_in_five_lines():
    network = aj.AttentionUNet3D(num_classes=3, widths=(2, 3, 4), gating_channels=4)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)))
    variables = jax.jit(network.init, static_argnames="train")(
        jax.random.key(0), image, train=False
    )
    logits: Any
    logits, sown = jax.jit(network.apply, static_argnames=("train", "mutable"))(
        variables, image, train=False, mutable=("intermediates",)
    )
    labels = jnp.zeros((1, 8, 8, 8), jnp.int32)
    loss = aj.soft_dice_loss(labels, logits)
    alpha: Any = sown["intermediates"]["gate_2"]["sub_gate_1"]["alpha"][0]
    assert logits.shape == (1, 8, 8, 8, 3) and 0 < float(loss) < 1
    assert alpha.shape == (1, 4, 4, 4, 1) and 0 < float(alpha.min())
