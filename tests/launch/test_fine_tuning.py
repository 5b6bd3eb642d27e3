"""Runs that begin from finished ones, and from weights of the published code."""

import shutil
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

from attunet_jax.checkpoint import Checkpoints
from attunet_jax.predict.predictor import load_predictor
from attunet_jax.train.trained import load_trained, state_of_weights
from attunet_jax.volume import read_scan

STEPS = (
    "--config.train.steps=2",
    "--config.optimizer.l2=0",
    "--config.model.convolution=compiler",  # compiles in half the time
)


def arrays(workdir, step):
    """Every parameter of a checkpoint, by path."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        folder = workdir / "checkpoints" / str(step) / "state"
        tree = checkpointer.restore(folder.absolute())
    return {k: np.asarray(v) for k, v in flatten_dict(tree["params"], sep="/").items()}


@pytest.fixture(scope="module")
def fine_tune(run_program, finish, prepared, tiny_flags, trained):
    def start(workdir, *words):
        return finish(
            run_program(
                "launch.train",
                "--config=configs/attention_unet.py",
                f"--data={prepared}",
                f"--workdir={workdir}",
                f"--config.init_from={trained[0]}",
                *tiny_flags,
                *STEPS,
                *words,
            )
        )

    return start


# 2026-11-24: Orbax warns when no target is given; here the point is to read whatever
# was written, by itself, on the same machine.
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_fine_tuning_on_one_organ_leaves_the_other_outputs_alone(
    fine_tune, trained, scan_folder, tmp_path
):
    source, workdir = tmp_path / "source", tmp_path / "tuned"
    shutil.copytree(trained[0], source)
    words = (f"--config.init_from={source}", "--config.classes=background,pancreas")
    status, output, errors = fine_tune(workdir, *words)
    assert status == 0, errors
    assert f"begins from {source}, step " in output
    took = output.split("took ")[1].split(" arrays")[0].split(" of ")
    assert took[0] == took[1] and "new:" not in output
    before_step = output.split(f"begins from {source}, step ")[1].split(":")[0]
    before, after = arrays(trained[0], before_step), arrays(workdir, 2)
    assert before.keys() == after.keys()
    kernel = "fusion/kernel"
    moved = (before[kernel] != after[kernel]).any((0, 1, 2, 3))
    # Of background, spleen, pancreas, kidney:
    assert moved.tolist() == [True, False, True, False]
    assert (before["encoder_1/conv_1/kernel"] != after["encoder_1/conv_1/kernel"]).any()

    scan = read_scan(scan_folder / "images" / "ball_0.nii.gz")
    for argmax_over, allowed in (("classes", {0, 2}), ("outputs", {0, 1, 2, 3})):
        predictor = load_predictor(workdir, {"argmax_over": argmax_over})
        assert set(np.unique(predictor(scan))) <= allowed
        named = {0: "background", 1: "spleen", 2: "pancreas", 3: "kidney"}
        assert predictor.names == {value: named[value] for value in sorted(allowed)}

    # It goes on without its source, with all of the source's outputs.
    shutil.rmtree(source)
    status, output, errors = fine_tune(workdir, *words, "--config.train.steps=3")
    assert status == 0, errors
    assert "continuing at step 2 of 3" in output
    assert arrays(workdir, 3)[kernel].shape[-1] == 4


def test_other_organs_than_the_sources_get_a_new_head(fine_tune, trained, tmp_path):
    # As many classes, of which one has another meaning.
    model = load_trained(trained[0], {})
    model.run["outputs"][-1] = model.run["config"]["classes"][-1] = "liver"
    source = tmp_path / "source"
    with Checkpoints(
        source / "checkpoints", keep_latest=1, keep_best=1, clean_up=True
    ) as checkpoints:
        state = state_of_weights(model.variables, model.run)
        checkpoints.save(12, state, position={"step": 12}, run=model.run, metrics=None)
    # The default: trains by the program that the source was trained by.
    words = (f"--config.init_from={source}", "--config.optimizer.l2=1e-6")
    status, output, errors = fine_tune(tmp_path / "other", *words)
    assert status == 0, errors
    new = output.split("new: ")[1].split("\n")[0].split(", ")
    assert new and all(n.split("/")[1].startswith(("fusion", "superv")) for n in new)


def test_a_source_that_does_not_fit_is_one_line_and_nothing_is_written(
    refused, refused_here, prepared, tiny_flags, trained, tmp_path
):
    workdir = tmp_path / "run"
    cases = {
        "--config.model.widths=4,8": "model.widths (4,6 there, 4,8 here)",
        "--config.classes=background,liver": "--config.classes=background,liver: ",
        "--config.init_from=nowhere": "nowhere: no checkpoints here",
        "--config.model.sub_gates=1": "model.sub_gates (2 there, 1 here)",
    }
    for word, said in cases.items():
        words = [
            f"--data={prepared}",
            f"--workdir={workdir}",
            f"--config.init_from={trained[0]}",
            *(f for f in tiny_flags if f.split("=")[0] != word.split("=")[0]),
            word,
        ]
        status, line = refused_here("launch.train", *words)
        assert status in (2, 3) and said in line
    status, line = refused("launch.train", *words)  # the last as a program
    assert status == 2 and said in line
    assert not workdir.exists()


def test_imported_weights_predict_and_can_be_fine_tuned(
    run_program, finish, predict_here, published_file, scan_folder, prepared, tmp_path
):
    workdir = tmp_path / "imported"
    words = (f"--input={published_file}", f"--workdir={workdir}", "--spacing_mm=4")
    status, output, errors = finish(run_program("launch.import_weights", *words))
    assert status == 0, errors
    assert "widths (2, 3, 4), 0 sub-gates" in output
    scan = scan_folder / "images" / "ball_0.nii.gz"
    place = (f"--input={scan}", f"--output={tmp_path / 'maps'}")
    status, said = predict_here(workdir, *place)
    assert status == 0, said
    assert (tmp_path / "maps" / "ball_0.nii.gz").exists()
    words = (
        "--config=configs/published.py",
        f"--data={prepared}",
        f"--workdir={tmp_path / 'tuned'}",
        f"--config.init_from={workdir}",
        "--config.model.widths=2,3,4",
        "--config.model.sub_gates=0",
        "--config.model.gating_channels=4",
        "--config.classes=background,pancreas",
        "--config.data.crop_shape=16,16,16",
        "--config.data.read_shape=32,32,32",
        "--config.train.steps=1",
        "--config.model.convolution=compiler",
    )
    status, output, errors = finish(run_program("launch.train", *words))
    assert status == 0, errors
    took = output.split("took ")[1].split(" arrays")[0].split(" of ")
    assert took[0] == took[1]


def test_weights_that_cannot_be_imported_are_one_line_and_make_nothing(
    refused, refused_here, published_file, trained, tmp_path
):
    workdir = tmp_path / "run"
    with np.load(published_file) as arrays:
        tensors = dict(arrays)
    broken: dict[str, Any] = {
        "other": {"layer1.0.conv1.weight": np.zeros((2, 2), np.float32)},
        "less": {k: v for k, v in tensors.items() if k != "conv2.conv1.0.bias"},
        "more": tensors | {"extra.weight": np.zeros(3, np.float32)},
        "huge": tensors | {"conv2.conv1.0.bias": np.full(3, 1e30, np.float32)},
        "bent": tensors | {"conv2.conv1.0.bias": np.zeros(9, np.float32)},
    }
    said = {
        "other": "tensor conv1.conv1.0.weight is missing",
        "less": "tensor conv2.conv1.0.bias is missing",
        "more": "tensor extra.weight is surplus",
        "huge": "not all numbers are finite and below",
        "bent": "tensor conv2.conv1.0.bias has shape (9,), expected (3,)",
    }

    for name, content in broken.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **content)
        words = (f"--input={path}", f"--workdir={workdir}")
        status, line = refused_here("launch.import_weights", *words)
        assert status == 3 and f"{path}: {said[name]}" in line
    status, line = refused("launch.import_weights", *words)  # the last as a program
    assert status == 3 and said[name] in line
    words = (f"--input={published_file}", f"--workdir={workdir}")
    two = "--config.classes=background,pancreas"
    status, line = refused_here("launch.import_weights", *words, two)
    assert status == 3 and "has 4 outputs" in line
    assert not workdir.exists()
    words = (words[0], f"--workdir={trained[0]}")
    status, line = refused_here("launch.import_weights", *words)
    assert status == 2 and "holds a run already" in line
