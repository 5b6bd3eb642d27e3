"""Which fields make another run, which values a field may have, and fields renamed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attunet_jax.config_fields import FIELDS, RENAMED, check_stored
from attunet_jax.errors import BadArguments
from attunet_jax.train.config_checks import (
    check_config,
    differing_fields,
    epochs_text,
    warnings_of,
    with_current_fields,
)
from configs import base


def resolved(**changes: Any) -> dict[str, Any]:
    """The base config as JSON; `data__batch_size=2` changes `data.batch_size`."""
    config = json.loads(base.get_config().to_json())
    config["classes"] = list(base.PAPER_CLASSES)
    for name, value in changes.items():
        group, _, field = name.partition("__")
        if field:
            config[group][field] = value
        else:
            config[group] = value
    return json.loads(json.dumps(config))


def test_the_same_run_differs_in_nothing_wherever_and_however_fast_it_runs():
    elsewhere = resolved(
        data__directory="/mnt/data",
        data__threads=1,
        data__prefetch_batches=1,
        model__convolution="matrix",
        model__remat=True,
        train__steps=10,
        train__keep_best=3,
        mesh__spatial=4,
        predict__average_flips=True,
        name="another",
    )
    assert differing_fields(resolved(), elsewhere) == []


def test_what_decides_the_parameters_is_named_with_both_values():
    other = resolved(
        seed=1,
        classes=("background", "liver"),
        init_from="RUN",
        model__sub_gates=1,
        data__crop_shape=(16, 16, 16),
        augment__rotation_degrees=0.0,
        loss__smoothing=1.0,
        optimizer__learning_rate=0.5,
    )
    assert differing_fields(resolved(), other) == [
        "--config.seed (0 there, 1 here)",
        "--config.classes (background,spleen,pancreas,kidney there, "
        "background,liver here)",
        "--config.init_from ( there, RUN here)",
        "--config.model.sub_gates (2 there, 1 here)",
        "--config.data.crop_shape (96,160,160 there, 16,16,16 here)",
        "--config.augment.rotation_degrees (15.0 there, 0.0 here)",
        "--config.loss.smoothing (0.01 there, 1.0 here)",
        "--config.optimizer.learning_rate (0.0001 there, 0.5 here)",
    ]


def test_a_field_that_one_side_lacks_differs():
    older = resolved()
    del older["loss"]["auxiliary_weight"]
    said = differing_fields(older, resolved())
    assert said == ["--config.loss.auxiliary_weight (None there, 0.5 here)"]


def test_renamed_fields_are_in_the_config_by_their_new_names_only():
    fields = resolved()
    for old, new in RENAMED.items():
        for name, expected in ((old, False), (new, True)):
            group, field = name.split(".")
            assert (field in fields[group]) == expected, name


def test_a_stored_config_is_read_by_the_new_names_and_left_as_it_is():
    stored = resolved()
    for old, new in RENAMED.items():
        group, field = new.split(".")
        stored[group][old.split(".")[1]] = stored[group].pop(field)
    before = json.dumps(stored)
    assert with_current_fields(stored) == resolved()
    assert with_current_fields(resolved()) == resolved()
    assert json.dumps(stored) == before
    assert differing_fields(with_current_fields(stored), resolved()) == []


def test_a_stored_config_of_before_a_field_gets_what_it_meant_then():
    stored = resolved()
    for field in ("region", "argmax_over", "spatial"):
        del stored["predict"][field]
    assert with_current_fields(stored) == resolved()


def test_the_comment_of_a_field_names_every_value_that_it_may_have():
    text = Path(base.__file__).read_text(encoding="utf-8")
    for name, field in FIELDS.items():
        found = re.search(rf"((?: +#.*\n)+) +{re.escape(name)} = ", text)
        for value in field.choices:
            assert found, name
            word = f'"{value}"' if isinstance(value, str) else str(value)
            assert word in found[1], f"{name}: {word}"


def test_a_field_that_a_stored_config_lacks_is_not_checked():
    config = resolved()
    del config["predict"]["region"], config["augment"]
    check_stored(config)
    config["predict"]["region"] = "half"
    with pytest.raises(BadArguments, match="--config.predict.region=half: must be one"):
        check_stored(config)


def test_what_is_hardly_meant_is_said_with_the_field_to_change():
    config = base.get_config()
    assert warnings_of(config, 2) == []
    config.data.batch_size = 9
    (line,) = warnings_of(config, 5)
    assert "--config.data.batch_size=9: there are 5 training cases" in line
    # 2 cases of 1 x 3 x 5 at the coarsest of five scales: 30 numbers a channel.
    config.data.batch_size = 2
    config.data.crop_shape = (16, 48, 80)
    (line,) = warnings_of(config, 5)
    assert "30 numbers a channel" in line
    assert (
        "--config.data.batch_size=3 or" in line and "--config.data.crop_shape" in line
    )
    config.data.batch_size = 3
    assert warnings_of(config, 5) == []


def test_steps_are_said_in_epochs_too():
    assert epochs_text(300, 9, 5) == "300 steps (540 epochs of 5 cases)"
    assert epochs_text(12_000, 2, 7) == "12,000 steps (3,429 epochs of 7 cases)"


def test_fields_that_contradict_each_other_are_refused_before_a_training():
    for changes, words in (
        ({"data.crop_shape": (96, 160, 224)}, "--config.data.read_shape=96,208,208: "),
        ({"data.crop_shape": (96, 160, 150)}, "--config.data.crop_shape=96,160,150: "),
        ({"predict.window_shape": (96, 90, 96)}, "--config.predict.window_shape=96,90"),
        ({"predict.spatial": 4}, "--config.predict.spatial=4 its depth must be divis"),
    ):
        config = base.get_config()
        config.update_from_flattened_dict(changes)
        with pytest.raises(BadArguments, match=words):
            check_config(config)
