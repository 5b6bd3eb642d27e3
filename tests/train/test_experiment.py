"""A config and a data set make an experiment, or a field that cannot be is named."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from attunet_jax.config_fields import as_typed
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import make_mesh
from attunet_jax.errors import BadArguments
from attunet_jax.train.experiment import (
    Experiment,
    label_lookup,
    make_experiment,
    make_training,
    output_names,
)
from attunet_jax.train.setup import as_begun
from configs import base

ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3, "liver": 7}


def dataset(train: int = 5) -> Dataset:
    parts = {
        "train": tuple(f"case_{i}" for i in range(train)),
        "validation": ("case_8", "case_9"),
        "test": (),
    }
    cases = [
        {"case_id": i, "labelled_hu": {"first": 40, "counts": "5 0 5"}}
        for part in parts.values()
        for i in part
    ]
    manifest = {
        "organs": ORGANS,
        "spacing_mm": [2.0, 2.0, 2.0],
        "settings": {"blur_mm": 0.75},
        "cases": cases,
    }
    return Dataset(Path("data"), manifest, {"80_20": parts}, "abc")


def config_with(**changes: Any) -> Any:
    """The base config; `data__batch_size=2` changes `config.data.batch_size`."""
    config = base.get_config()
    config.classes = base.PAPER_CLASSES
    for name, value in changes.items():
        *groups, field = name.split("__")
        place = config
        for group in groups:
            place = place[group]
        with place.ignore_type():
            place[field] = value
    return config


def make(config: Any, source: Any = None, train: int = 5) -> Experiment:
    return make_experiment(config, dataset(train), make_mesh(1, 1), source)


def experiment_with(train: int = 5, **changes: Any) -> Experiment:
    return make(config_with(**changes), train=train)


def loss_options(experiment: Any) -> dict[str, Any]:
    return experiment.train_step.keywords["loss"].keywords


@pytest.mark.parametrize(
    "train, changes, steps",
    [
        (5, {"train__epochs": 10}, 20),  # 5 cases make 2 whole batches of 2
        (4, {"train__epochs": 10}, 20),
        (5, {"train__epochs": 10, "data__batch_size": 1}, 50),
        (5, {"train__epochs": 10, "data__batch_size": 8}, 10),  # fewer than a batch
        (5, {"train__epochs": 10, "train__steps": 7}, 7),
    ],
)
def test_an_epoch_is_as_many_steps_as_whole_batches_but_at_least_one(
    train, changes, steps
):
    assert experiment_with(train, **changes).steps == steps


@pytest.mark.parametrize("average, updates", [(1, 4), (2, 2)])
def test_the_learning_rate_halves_after_the_epochs_that_were_asked_for(
    average, updates
):
    # Two epochs of two batches; averaging makes half as many updates of them.
    optimizer = experiment_with(
        optimizer__decay_every_epochs=2,
        optimizer__grad_accum_steps=average,
        optimizer__learning_rate=0.25,
        optimizer__l2=0.0,
    ).optimizer
    one = np.ones(1, np.float32)
    state = optimizer.init(one)
    sizes = []
    update = jax.jit(optimizer.update)
    for _ in range(8):
        change, state = update(one, state, one)
        sizes.append(-float(change[0]))
    # Adam's updates for a constant gradient are the learning rate itself.
    made = [size for size in sizes if size]
    expected = [0.25] * updates + [0.125] * updates
    assert made == pytest.approx(expected, rel=1e-4)


def test_an_experiment_says_who_trains_what_is_measured_and_what_the_run_is():
    experiment = experiment_with(classes=("background", "liver", "spleen"))
    assert experiment.train_ids == tuple(f"case_{i}" for i in range(5))
    assert experiment.validation_ids == ("case_8", "case_9")
    assert experiment.organs == ("liver", "spleen")
    assert experiment.network.num_classes == 3
    run = json.loads(json.dumps(experiment.run))
    assert run["config"]["classes"] == ["background", "liver", "spleen"]
    assert run["config"]["data"]["batch_size"] == 2
    assert run["outputs"] == ["background", "liver", "spleen"]
    assert run["spacing_mm"] == [2.0, 2.0, 2.0]
    assert run["blur_mm"] == 0.75
    assert run["manifest_sha256"] == "abc"


def test_the_loss_of_an_experiment_takes_the_configs_fields():
    options = loss_options(
        experiment_with(
            loss__smoothing=0.5,
            loss__smoothing_inside_factor=True,
            loss__include_background=False,
        )
    )
    assert options == {
        "classes": (0, 1, 2, 3),
        "smoothing": 0.5,
        "smoothing_inside_factor": True,
        "include_background": False,
        "averaged_over": 3,
    }


def test_steps_mask_voxels_without_a_truth_only_where_the_data_has_any():
    for ignored in (None, 255):
        labels = LabelMap(ORGANS, ignored)
        training: Any = make_training(config_with(), labels, make_mesh(1, 1))
        for step in (training.train_step, training.eval_step):
            assert step.keywords["crops"].keywords["ignore_value"] == ignored


def test_stored_labels_become_output_nodes_and_others_background():
    classes = ("background", "liver", "pancreas")
    assert label_lookup(LabelMap(ORGANS), classes, classes) == (0, 0, 2, 0, 0, 0, 0, 1)


def test_a_subset_of_a_finished_runs_classes_keeps_all_its_nodes():
    source: Any = SimpleNamespace(
        outputs=("background", "spleen", "pancreas", "kidney"),
        workdir=Path("RUN"),
        run={"config": {"model": json.loads(config_with().to_json())["model"]}},
    )
    classes = ("background", "pancreas")
    assert output_names(classes, source) == source.outputs
    assert output_names(("background", "liver"), source) == ("background", "liver")
    assert output_names(classes, None) == classes
    # Spleen and kidney keep their nodes in the label, which count for neither class.
    assert label_lookup(LabelMap(ORGANS), source.outputs, classes)[:4] == (0, 1, 2, 3)
    experiment = make(config_with(classes=classes), source)
    assert experiment.network.num_classes == 4
    assert experiment.organs == ("pancreas",)
    options = loss_options(experiment)
    assert (options["classes"], options["averaged_over"]) == ((0, 2), 2)
    eval_step: Any = experiment.eval_step
    assert eval_step.keywords["classes"] == (0, 2)
    published = config_with(classes=classes, loss__reduce_over="outputs")
    experiment = make(published, source)
    assert loss_options(experiment)["averaged_over"] == 4


def test_a_source_may_compute_in_another_type_and_begin_with_other_gates():
    def model(**fields):
        return {"model": json.loads(config_with(**fields).to_json())["model"]}

    bits, begin = "model__compute_dtype", "model__gate_initialisation"
    for there, here in (
        ({bits: "float32"}, {bits: "bfloat16"}),
        ({bits: "bfloat16"}, {bits: "float32"}),
        ({begin: "kaiming"}, {begin: "pass_through"}),
    ):
        source: Any = SimpleNamespace(
            outputs=("background", "spleen", "pancreas", "kidney"),
            workdir=Path("RUN"),
            run={"config": model(**there)},
        )
        assert make(config_with(**here), source).network.num_classes == 4
        with pytest.raises(BadArguments, match="model.gate_kernel"):
            make(config_with(model__gate_kernel=1), source)


@pytest.mark.parametrize(
    "classes",
    [
        ("spleen", "pancreas"),
        ("spleen", "background"),
        ("background", "heart"),
        ("background", "spleen", "spleen"),
        ("background", "background"),
    ],
)
def test_classes_that_are_not_background_and_organs_are_refused(classes):
    with pytest.raises(BadArguments) as caught:
        experiment_with(classes=classes)
    message = str(caught.value)
    assert message.startswith(f"--config.classes={','.join(classes)}: ")
    assert "organs" in message and "each once" in message


@pytest.mark.parametrize(
    "field, value",
    [
        ("data.batch_size", 0),
        ("data.crop_shape", (96, 160, 150)),
        ("data.read_shape", (80, 208, 208)),
        ("data.normalisation", "window"),
        ("model.widths", (16,)),
        ("predict.window_shape", (96, 160, 150)),
        ("predict.checkpoint", "bset"),
    ],
)
def test_a_field_that_cannot_be_is_named_in_one_line(field, value):
    with pytest.raises(BadArguments) as caught:
        experiment_with(**{field.replace(".", "__"): value})
    message = str(caught.value)
    assert f"--config.{field}={as_typed(value)}: " in message and "\n" not in message


def test_a_split_that_is_not_there_or_has_no_training_cases_is_named():
    with pytest.raises(BadArguments, match="no split 'cv_1'; it has: 80_20"):
        experiment_with(data__split="cv_1")
    with pytest.raises(BadArguments, match="split 80_20 has no training cases"):
        experiment_with(train=0)


@pytest.mark.parametrize(
    "path", sorted(Path(base.__file__).parent.glob("[a-z]*.py")), ids=lambda p: p.stem
)
def test_every_config_makes_an_experiment(path):
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    experiment = make(config)
    assert experiment.steps >= (120 if path.stem == "tables_small" else 300)
    expected = json.loads(config.to_json())
    if not config.classes:  # those of the data are what is stored
        expected["classes"] = ["background", *ORGANS]
    assert experiment.run["config"] == expected


def test_a_command_without_classes_goes_on_with_those_of_its_run(tmp_path):
    stored = json.loads(config_with(classes=("background", "liver")).to_json())
    (tmp_path / "config.json").write_text(json.dumps({"config": stored}))
    for checkpoints, classes in [(False, ()), (True, ("background", "liver"))]:
        if checkpoints:
            (tmp_path / "checkpoints" / "2").mkdir(parents=True)
        found, lines = as_begun(config_with(classes=()), tmp_path)
        assert (found.classes, lines) == (classes, [])
    named = ("background", "spleen")
    assert as_begun(config_with(classes=named), tmp_path)[0].classes == named


def test_without_classes_all_organs_of_the_data_are_trained():
    config = config_with(classes=())
    experiment = make(config)
    assert experiment.organs == tuple(ORGANS)
    assert experiment.network.num_classes == 5
    for stored in (experiment.run["outputs"], experiment.run["config"]["classes"]):
        assert stored == ["background", "spleen", "pancreas", "kidney", "liver"]
    assert config.classes == ()  # the caller's config stays as it was
    mesh = make_mesh(1, 1)
    training = make_training(config_with(classes=()), LabelMap({"liver": 1}), mesh)
    assert training.network.num_classes == 2
