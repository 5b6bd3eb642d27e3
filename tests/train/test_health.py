"""A run whose numbers are no longer finite, and one that learns nothing."""

import jax
import numpy as np
import pytest

from attunet_jax.checkpoint import Checkpoints, open_existing
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.train.health import Health
from attunet_jax.train.loop import train
from attunet_jax.train.trained import load_trained
from configs import base


def config_of(prepared, **changes):
    """A tiny run on the prepared balls; `train__steps=3` changes `train.steps`."""
    config = base.get_config()
    config.model.widths = (2, 3)
    config.model.sub_gates = 0  # seconds less to compile
    config.model.deep_supervision = "none"
    config.model.convolution = "compiler"
    config.data.directory = str(prepared)
    config.data.crop_shape = config.data.read_shape = (8, 8, 8)
    config.data.threads = 1
    config.mesh.data = 1
    config.optimizer.learning_rate = 1e-3
    config.train.log_every_steps = 1000
    config.train.checkpoint_every_steps = 2
    config.train.evaluate_every_steps = 1000
    for name, value in changes.items():
        group, field = name.split("__")
        config[group][field] = value
    return config


def test_a_state_that_is_not_finite_is_never_saved_and_the_last_good_one_stays(
    prepared, tmp_path
):
    # A rate that explodes after the first epoch, of 3 steps, between two log lines.
    run = tmp_path / "run"
    config = config_of(
        prepared,
        optimizer__decay_every_epochs=1,
        optimizer__decay_factor=1e38,
        train__steps=10,
    )
    with pytest.raises(BadArguments) as caught:
        train(config, run)
    message = str(caught.value)
    assert "not finite at step 4" in message and "good up to step 2" in message
    assert f"--config.init_from={run}" in message
    assert "--config.optimizer.learning_rate=0.0001" in message
    with open_existing(run) as checkpoints:
        assert checkpoints.steps() == [2]
    trained = load_trained(run, {})
    assert trained.step == 2
    for leaf in jax.tree.leaves(trained.variables):
        assert np.isfinite(leaf).all()


def save(workdir, step, state):
    with Checkpoints(
        workdir / "checkpoints", keep_latest=5, keep_best=1, clean_up=True
    ) as checkpoints:
        checkpoints.save(
            step, state, position={"step": step}, run={"format": 1}, metrics=None
        )
        return checkpoints.steps()


def test_any_number_of_the_state_that_is_not_finite_is_found_and_named(tmp_path):
    good = {
        "step": np.int32(3),
        "params": {"w": np.ones((3, 2), np.float32)},
        "batch_stats": {"var": np.ones(2, np.float32)},
        "opt_state": ({"mu": np.ones(5, np.float32)},),
    }
    assert save(tmp_path, 1, good) == [1]
    for name, place in (
        ("params/w", good["params"]["w"]),
        ("batch_stats/var", good["batch_stats"]["var"]),
        ("opt_state/0/mu", good["opt_state"][0]["mu"]),
    ):
        for wrong in (np.nan, -np.inf, 1e30):  # the square of the last is inf
            place.flat[-1] = wrong
            with pytest.raises(BadData, match=f"{name} is not finite"):
                save(tmp_path, 2, good)
            place.flat[-1] = 1
    assert save(tmp_path, 3, good) == [1, 3]


def test_a_dead_gradient_and_a_dice_that_stays_0_are_said_once():
    health = Health()
    assert health.gradient(1, 0.3) is None
    assert "gradient is 0 at step 2" in (health.gradient(2, 0.0) or "")
    assert health.gradient(3, 0.0) is None
    # A Dice of 0 is usual at first, and not where it was otherwise in between.
    none = {"dice": 0.0, "spleen": 0.0, "kidney": 0.0}
    some = {"dice": 0.1, "spleen": 0.2, "kidney": 0.0}
    both = {"dice": 0.2, "spleen": 0.2, "kidney": 0.2}
    said = [
        health.validation(i, d, last=False) for i, d in enumerate((none, some, none))
    ]
    assert said == [None] * 3
    assert "Dice is 0 at step 4" in (health.validation(4, none, last=False) or "")
    assert health.validation(5, none, last=True) is None
    # The last of a run, and the only one.
    assert Health().validation(9, both, last=True) is None
    assert "Dice is 0 at step 9" in (Health().validation(9, none, last=True) or "")
    assert "Dice of kidney is 0" in (Health().validation(9, some, last=True) or "")
