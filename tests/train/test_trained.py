"""Trained models: what is read of a checkpoint, also of one with old field names."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.checkpoint import Checkpoints
from attunet_jax.config_fields import ADDED, RENAMED
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import make_mesh
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.train.experiment import make_training
from attunet_jax.train.trained import init_from, load_trained, state_of_weights
from configs import base


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    config = base.get_config()
    config.classes = base.PAPER_CLASSES
    config.model.widths = (2, 3)
    config.model.gating_channels = 2
    config.model.convolution = "compiler"
    config.data.crop_shape = config.data.read_shape = (16, 16, 16)
    resolved = json.loads(config.to_json())
    return {"config": resolved, "outputs": resolved["classes"]}


@pytest.fixture(scope="module")
def state() -> Any:
    config = base.get_config()
    config.model.widths = (2, 3)
    config.model.gating_channels = 2
    config.data.crop_shape = config.data.read_shape = (16, 16, 16)
    mesh = make_mesh(1, 1)
    labels = LabelMap.numbered(("spleen", "pancreas", "kidney"))
    training = make_training(config, labels, mesh)
    shapes = jax.eval_shape(training.create_state, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(1, 2, x.shape), x.dtype), shapes
    )


def save(workdir, state, run):
    with Checkpoints(
        workdir / "checkpoints", keep_latest=1, keep_best=1, clean_up=True
    ) as checkpoints:
        checkpoints.save(7, state, position={"step": 7}, run=run, metrics=None)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_parameters_and_statistics_come_back_on_one_device(tmp_path, state, run):
    save(tmp_path, state, run)
    trained = load_trained(tmp_path, {})
    assert trained.step == 7 and trained.outputs[2] == "pancreas"
    assert trained.variables.keys() == {"params", "batch_stats"}
    assert_same(trained.variables, state.variables)
    for leaf in jax.tree.leaves(trained.variables):
        assert leaf.sharding.device_set == {jax.devices()[0]}


def test_a_run_stored_with_old_field_names_is_read(tmp_path, state, run):
    old_run = json.loads(json.dumps(run))
    for old, new in RENAMED.items():
        group, field = new.split(".")
        old_run["config"][group][old.split(".")[1]] = old_run["config"][group].pop(
            field
        )
    save(tmp_path, state, old_run)
    trained = load_trained(tmp_path, {"argmax_over": "outputs"})
    assert trained.run["config"]["predict"]["argmax_over"] == "outputs"
    assert "largest_of" not in trained.run["config"]["predict"]
    assert_same(trained.variables, state.variables)


def test_parameters_that_are_not_finite_are_refused_by_prediction(
    tmp_path, state, run, monkeypatch
):
    monkeypatch.setattr("attunet_jax.checkpoint.is_finite", lambda tree: True)
    broken = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    save(tmp_path, broken, run)  # as before that was refused
    with pytest.raises(BadData, match="step 7 are not finite.*--config.predict.check"):
        load_trained(tmp_path, {})


def test_windows_that_do_not_fit_the_network_are_refused_on_loading(
    tmp_path, state, run
):
    save(tmp_path, state, run)
    assert load_trained(tmp_path, {"window_shape": (8, 8, 8)}).step == 7
    with pytest.raises(BadArguments, match="--config.predict.window_shape=9,8,8: "):
        load_trained(tmp_path, {"window_shape": (9, 8, 8)})


def test_another_network_than_the_stored_one_or_a_bad_choice_is_refused(
    tmp_path, state, run
):
    for field, value, words in (
        ("widths", [2, 4], r"bottleneck.* has shape .* there, .* here"),
        ("deep_supervision", "none", r"fusion.* there, None here"),
    ):
        other = json.loads(json.dumps(run))
        other["config"]["model"][field] = value
        save(tmp_path / field, state, other)
        with pytest.raises(BadData, match=f"7: cannot be restored .*{words}"):
            load_trained(tmp_path / field, {})
    save(tmp_path / "choice", state, run)
    with pytest.raises(BadArguments, match="--config.predict.argmax_over=organs"):
        load_trained(tmp_path / "choice", {"argmax_over": "organs"})


def test_weights_from_elsewhere_make_a_run_to_begin_from(tmp_path, state, run):
    weights = jax.tree.map(lambda x: np.asarray(x) + 1, state.variables)
    save(tmp_path, state_of_weights(weights, run), run)
    trained = load_trained(tmp_path, {})
    begun, new = init_from(trained, state, trained.outputs)
    assert new == []
    assert_same(begun.variables, weights)
    assert_same(begun.opt_state, state.opt_state)
    begun, new = init_from(trained, state, ("background", "liver", "a", "b"))
    assert new and all(n.split("/")[1].startswith(("superv", "fusion")) for n in new)
    assert_same(begun.params["fusion"], state.params["fusion"])


def test_a_run_of_a_newer_version_or_with_unknown_fields_is_refused_by_name(
    tmp_path, state, run
):
    def changed(name, change):
        other = json.loads(json.dumps(run | {"format": 1, "version": "0.9.7"}))
        change(other)
        save(tmp_path / name, state, other)
        with pytest.raises(BadData) as caught:
            load_trained(tmp_path / name, {})
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / name / 'checkpoints' / '7'}: written by ")
        assert "0.9.7" in text and "\n" not in text
        return text

    assert "format 2" in changed("newer", lambda r: r.update(format=2))
    assert "format new" in changed("named", lambda r: r.update(format="new"))
    for group, field in (("model", "dropout"), ("data", "x"), ("loss", "y")):
        text = changed(field, lambda r, g=group, f=field: r["config"][g].update({f: 0}))
        assert f"with config.{group}.{field}, " in text and "does not know" in text
    text = changed("less", lambda r: r["config"]["model"].pop("widths"))
    assert "without config.model.widths, " in text and "needs" in text


def test_fields_that_runs_of_before_lack_mean_what_was_done_then(tmp_path, state, run):
    old, expected = (json.loads(json.dumps(run)) for _ in range(2))
    for name, meant in ADDED.items():
        group, _, field = name.rpartition(".")
        for stored in (old, expected):
            fields = stored["config"][group] if group else stored["config"]
            fields.pop(field) if stored is old else fields.update({field: meant})
    save(tmp_path, state, old)
    assert load_trained(tmp_path, {}).run["config"] == expected["config"]
