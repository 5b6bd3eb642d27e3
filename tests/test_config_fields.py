"""The table of config fields: what each takes, and what is said of anything else."""

import json
import math
from typing import Any

import pytest

from attunet_jax.config_fields import FIELDS, as_typed, check_fields
from attunet_jax.data.crops import PADDINGS
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import NORMALISATIONS
from attunet_jax.ops import dispatch
from attunet_jax.train.optimizer import RULES
from configs import base

# By hand: a value that each field takes, and values just outside its range.
BOUNDS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "seed": ((0, 2**32 - 1), (-1, 2**32)),
    "model.widths": (((1, 1),), ((4,), (4, 0), (4, 2.5), 4, ())),
    "model.sub_gates": ((0,), (-1,)),
    "model.gating_channels": ((0,), (-1,)),
    "model.gate_reduction": ((1,), (0,)),
    "data.batch_size": ((1,), (0, -1, 1.5, True)),
    "data.crop_shape": (((1, 1, 1),), ((16, 16), (16, 16, 0), (1, 1, 1, 1), 48)),
    "data.read_shape": (((1, 1, 1),), ((16, 16), (16, 16, -1))),
    "data.foreground_fraction": ((0.0, 1, 1.0), (-0.1, 1.01)),
    "data.threads": ((1,), (0,)),
    "data.prefetch_batches": ((1,), (0,)),
    "augment.rotation_degrees": ((0.0, 180.0), (-1.0, 181.0)),
    "augment.shift_fraction": ((0.0, 1.0), (-0.1, 1.1)),
    "augment.zoom_range": (((1, 1), (0.1, 9.0)), ((0.0, 1.0), (1.3, 0.7), (1.0,))),
    "augment.flip_probability": ((0.0, 1.0), (-0.1, 1.1)),
    "loss.smoothing": ((0.0,), (-0.1,)),
    "loss.auxiliary_weight": ((0.0,), (-0.1,)),
    "optimizer.learning_rate": ((1e-30, 1e30), (0.0, -1.0, math.nan, math.inf)),
    "optimizer.l2": ((0.0,), (-1e-9,)),
    "optimizer.decay_factor": ((0.1, 2.0), (0.0,)),
    "optimizer.decay_every_epochs": ((1,), (0,)),
    "optimizer.grad_accum_steps": ((1,), (0,)),
    "train.epochs": ((1,), (0,)),
    "train.steps": ((0,), (-1,)),
    "train.log_every_steps": ((1,), (0,)),
    "train.evaluate_every_steps": ((1,), (0,)),
    "train.checkpoint_every_steps": ((1,), (0,)),
    "train.keep_latest": ((1,), (0,)),
    "train.hang_limit_s": ((0.5, 600.0), (0.0, -1.0)),
    "train.keep_best": ((0,), (-1,)),
    "mesh.data": ((-1, 1), (0, -2)),
    "mesh.spatial": ((1,), (0,)),
    "predict.whole_volume_limit_vox": ((0,), (-1,)),
    "predict.window_shape": (((1, 1, 1),), ((1, 1), (0, 1, 1))),
    "predict.window_overlap": ((0.0, 0.99), (1.0, -0.1)),
    "predict.window_sigma": ((0.01,), (0.0,)),
    "predict.spatial": ((1,), (0,)),
}
# Fields of text, names and truth, and those with a few values.
OTHERS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "classes": (
        (("background", "liver"), ()),
        (("background",), ("liver", "background"), ("background", "a", "a"), "b"),
    ),
    "predict.checkpoint": (("best", "latest", "120"), ("bset", "-1", "", 120)),
    "train.keep_steps": (((), (3,), (1, 10)), (5, (0,), (1, -1), (1.0,), "1")),
    "model.remat": ((True, False), (1, "true", None)),
    "model.gate_kernel": ((1, 2), (3, True, "1")),
    "optimizer.name": (("adam", "sgd"), ("adamw", "Adam", None)),
    "data.split": (("80_20",), (1, None)),
}


def resolved(**changes: Any) -> dict[str, Any]:
    """The base config as JSON; `data__batch_size=2` changes `data.batch_size`."""
    config = json.loads(base.get_config().to_json())
    for name, value in changes.items():
        group, _, field = name.partition("__")
        place = config[group] if field else config
        place[field or group] = value
    return config


def test_every_field_of_base_and_no_other_is_in_the_table():
    config = base.get_config()
    check_fields(config)
    found = set()
    for name, value in json.loads(config.to_json()).items():
        inside = value if isinstance(value, dict) else None
        found |= {f"{name}.{field}" for field in inside} if inside else {name}
    assert found == set(FIELDS)


def test_every_number_has_a_range_with_both_of_its_ends():
    flat = {}
    for name, value in resolved().items():
        inside = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{k}".rstrip("."): v for k, v in inside.items()}
    numbers = {
        name
        for name, value in flat.items()
        for one in (value[:1] if isinstance(value, list) else [value])
        if isinstance(one, int | float) and not isinstance(one, bool)
    }
    # A number of which there are only two.
    assert numbers - {"model.gate_kernel"} == BOUNDS.keys()


@pytest.mark.parametrize("name", [*BOUNDS, *OTHERS])
def test_a_value_in_range_passes_and_another_is_named_with_what_it_must_be(name):
    taken, refused = (BOUNDS | OTHERS)[name]
    changed = name.replace(".", "__")
    for value in taken:
        check_fields(resolved(**{changed: value}))
        assert FIELDS[name].parse(as_typed(value)) == value
    for value in refused:
        with pytest.raises(BadArguments) as caught:
            check_fields(resolved(**{changed: value}))
        text = str(caught.value)
        assert text.startswith(f"--config.{name}={as_typed(value)}: must be ")
        assert "\n" not in text and "\\" not in text


def test_a_field_that_is_unknown_or_missing_is_named():
    for change, message in [
        (
            {"data__batchsize": 2},
            "batchsize: no such field, did you mean --config.data.",
        ),
        ({"batch_size": 2}, "batch_size: no such field, did you mean --config.data."),
        ({"model__rematerialise": True}, "is now --config.model.remat"),
        ({"data__xyz": 2}, "--config.data.xyz: no such field$"),
    ]:
        with pytest.raises(BadArguments, match=message):
            check_fields(resolved(**change))
    config = resolved()
    del config["loss"]["smoothing"]
    with pytest.raises(BadArguments, match="--config.loss.smoothing: .* missing"):
        check_fields(config)


def test_the_values_of_the_table_are_those_that_the_library_knows():
    assert FIELDS["data.padding"].choices == PADDINGS
    assert FIELDS["data.normalisation"].choices == NORMALISATIONS
    assert FIELDS["optimizer.name"].choices == tuple(RULES)
    assert FIELDS["model.convolution"].choices == (
        dispatch.AUTO,
        *dispatch.CONVOLUTIONS,
    )
