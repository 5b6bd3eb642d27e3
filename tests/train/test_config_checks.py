"""Which fields make another run, which values a field may have, and fields renamed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.train.config_checks import (
    ALLOWED,
    RENAMED,
    check_allowed,
    differing_fields,
    with_current_fields,
)
from configs import base


def resolved(**changes: Any) -> dict[str, Any]:
    """The base config as JSON; `data__batch_size=2` changes `data.batch_size`."""
    config = json.loads(base.get_config().to_json())
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
        "seed (0 there, 1 here)",
        "classes (['background', 'spleen', 'pancreas', 'kidney'] there, "
        "['background', 'liver'] here)",
        "init_from ( there, RUN here)",
        "model.sub_gates (2 there, 1 here)",
        "data.crop_shape ([96, 160, 160] there, [16, 16, 16] here)",
        "augment.rotation_degrees (15.0 there, 0.0 here)",
        "loss.smoothing (0.01 there, 1.0 here)",
        "optimizer.learning_rate (0.0001 there, 0.5 here)",
    ]


def test_a_field_that_one_side_lacks_differs():
    older = resolved()
    del older["loss"]["auxiliary_weight"]
    said = differing_fields(older, resolved())
    assert said == ["loss.auxiliary_weight (None there, 0.5 here)"]


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
    for name, choices in ALLOWED.items():
        found = re.search(rf"((?: +#.*\n)+) +{re.escape(name)} = ", text)
        assert found, name
        for value in choices:
            word = f'"{value}"' if isinstance(value, str) else str(value)
            assert word in found[1], f"{name}: {word}"


def test_a_field_that_a_stored_config_lacks_is_not_checked():
    config = resolved()
    del config["predict"]["region"], config["augment"]
    check_allowed(config)
    config["predict"]["region"] = "half"
    with pytest.raises(BadArguments, match="config.predict.region='half' is none of"):
        check_allowed(config)
