"""Killed and resumed runs against one left alone: real processes, real signals."""

import json
import re
import signal

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

import launch.train
from attunet_jax.errors import BadArguments

STEPS = 14
STEPS_FLAGS = (
    f"--config.train.steps={STEPS}",
    "--config.train.log_every_steps=1",
    "--config.train.evaluate_every_steps=7",
    "--config.train.checkpoint_every_steps=2",
)


@pytest.fixture(scope="module")
def train_words(prepared, tiny_flags):
    return lambda workdir: [
        "--config=configs/attention_unet.py",
        f"--data={prepared}",
        f"--workdir={workdir}",
        *tiny_flags,
        *STEPS_FLAGS,
    ]


@pytest.fixture(scope="module")
def train(run_program, train_words):
    return lambda workdir, *more: run_program(
        "launch.train", *train_words(workdir), *more
    )


def stop_after(process, step, number):
    """Sends a signal when the run has logged `step`; returns its end and stderr."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output


def final_state(workdir):
    """Every array of the last checkpoint, by path."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(
            (workdir / "checkpoints" / str(STEPS) / "state").absolute()
        )
    leaves = flatten_dict(
        {"params": tree["params"], "stats": tree["batch_stats"]}
        | {"opt": dict(enumerate(tree["opt_state"]))}
    )
    return {k: np.asarray(v) for k, v in leaves.items() if v is not None}


def losses(workdir):
    rows = [
        json.loads(line)
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


# 2026-11-23: Orbax warns when no target is given; here the point is to read whatever
# was written, by itself, on the same machine.
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_resumed_run_equals_uninterrupted_run(
    train, train_words, tmp_path, read_events
):
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    output = finish(train(alone))
    assert "new run" in output and "held-out dice" in output

    status, errors = stop_after(train(broken), 3, signal.SIGTERM)
    assert status == 75
    assert "saved at step" in errors and "Traceback" not in errors
    status, _ = stop_after(train(broken), 9, signal.SIGKILL)
    assert status == -signal.SIGKILL
    output = finish(train(broken))
    assert "continuing at step" in output

    expected, got = final_state(alone), final_state(broken)
    assert expected.keys() == got.keys() and len(expected) > 50
    for path, array in expected.items():
        np.testing.assert_array_equal(got[path], array, err_msg=str(path))
    assert losses(broken) == losses(alone)
    assert sorted(losses(broken)) == list(range(1, STEPS + 1))

    # After a stop and a kill each step is once in every record of the run.
    events = [(tag, step) for tag, step, _ in read_events(broken / "tensorboard")]
    assert sorted(events) == sorted(set(events)) and ("loss", STEPS) in events
    rows = (broken / "metrics.jsonl").read_text().splitlines()
    keys = [(json.loads(row)["step"], tuple(json.loads(row))) for row in rows]
    assert len(keys) == len(set(keys))

    # Same command once more: nothing left to do, nothing changed.
    output = finish(train(broken, "--config.predict.average_flips=True"))
    assert "finished: at step 14" in output
    assert "to train more: --config.train.steps=28" in output
    # The last checkpoint keeps its settings of prediction: that is said.
    assert "--config.predict.average_flips" in output
    run = json.loads((broken / "config.json").read_text())
    assert run["config"]["predict"]["average_flips"] is False

    # Steps to record that this run does not have are refused, and another network,
    # whose field is named.
    for word, said in (
        ("--profile_steps=3:4", "--profile_steps=3:4: this run has no more steps"),
        ("--config.model.sub_gates=1", "model.sub_gates (2 there, 1 here)"),
    ):
        words = [*train_words(broken), "--config.mesh.data=1", word]
        with pytest.raises(BadArguments, match=re.escape(said)):
            launch.train.main(launch.train.FLAGS.parse(words))
