"""What a training run prints and leaves behind, and what it refuses."""

import json
import re
import signal

import pytest

DIFFERENT = "--config.model.gate_kernel=1"


def test_each_log_line_says_loss_speed_waiting_and_time_left(trained):
    _, output = trained
    lines = re.findall(
        r"step (\d+)/12  loss (\d\.\d{4})  \d+\.\d{3} s/step  "
        r"[\d.e+]+ cases/s  waiting for data \d+%  left \d+:\d\d",
        output,
    )
    assert [int(step) for step, _ in lines] == [4, 8, 12]
    assert float(lines[-1][1]) < float(lines[0][1])


def test_a_run_leaves_its_config_versions_commit_and_metrics(trained, read_events):
    workdir, _ = trained
    run = json.loads((workdir / "config.json").read_text())
    assert run["config"]["model"]["widths"] == [4, 6]
    assert run["config"]["optimizer"]["l2"] == 1e-6
    assert run["spacing_mm"] == [4, 4, 4]
    environment = json.loads((workdir / "environment.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}\+?", environment["commit"])
    assert environment["packages"].keys() >= {"jax", "flax", "optax", "grain"}
    assert environment["devices"] and environment["command"][1:]
    assert environment["convolution"] == run["convolution"] == "compiler"
    assert environment["glibc_tunables"] in (True, False)
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    dice = {row["step"]: row for row in rows if "held_out_dice" in row}
    assert list(losses) == [4, 8, 12] and list(dice) == [6, 12]
    assert dice[6].keys() >= {f"held_out_{o}" for o in ("spleen", "pancreas", "kidney")}
    events = read_events(workdir / "tensorboard")
    found = {step: value for tag, step, value in events if tag == "loss"}
    assert found == pytest.approx(losses)


def test_the_learning_curve_is_drawn_by_training_itself(trained):
    assert (trained[0] / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_the_newest_the_best_and_the_chosen_checkpoints_are_kept(trained):
    workdir, _ = trained
    steps = {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()}
    assert {"3", "12"} <= steps and len(steps) <= 3


@pytest.mark.parametrize(
    "words, said",
    [
        (["--config.data.crop_shape=(16,15,16)"], "config.data.crop_shape"),
        (["--config.data.split=90_10"], "--config.data.split=90_10: "),
        (
            ["--config.classes=background,liver"],
            "--config.classes=background,liver: ",
        ),
        (["--config.mesh.spatial=3"], "config.mesh.spatial=3"),
        (["--config.optimizer.name=lion"], "config.optimizer.name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_field_is_one_line_and_starts_no_run(
    refused_here, prepared, tiny_flags, tmp_path, words, said
):
    workdir = tmp_path / "run"
    status, line = refused_here(
        "launch.train",
        f"--data={prepared}",
        f"--workdir={workdir}",
        *tiny_flags,
        *words,
    )
    assert status == 2 and said in line
    assert not (workdir / "checkpoints").exists() or not any(
        (workdir / "checkpoints").iterdir()
    )


def test_a_folder_that_is_no_prepared_data_is_named(refused_here, tmp_path):
    status, line = refused_here(
        "launch.train", f"--data={tmp_path}", f"--workdir={tmp_path / 'run'}"
    )
    assert status == 3 and f"{tmp_path / 'manifest.json'}: no such file" in line


def test_a_workdir_that_cannot_be_made_is_named(
    refused, prepared, tiny_flags, tmp_path
):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "run"
    status, line = refused(
        "launch.train", f"--data={prepared}", f"--workdir={place}", *tiny_flags
    )
    assert status == 3 and str(tmp_path / "file") in line


def test_a_checkpoint_of_another_architecture_names_the_field(
    refused_here, prepared, tiny_flags, trained
):
    workdir, _ = trained
    status, line = refused_here(
        "launch.train",
        f"--data={prepared}",
        f"--workdir={workdir}",
        *tiny_flags,
        DIFFERENT,
    )
    assert status == 2 and "model.gate_kernel (2 there, 1 here)" in line


def test_a_second_training_in_the_same_folder_is_told_of_the_first(
    refused_here, run_program, prepared, tiny_flags, tmp_path
):
    workdir = tmp_path / "run"
    words = (f"--data={prepared}", f"--workdir={workdir}", *tiny_flags)
    steps = ("--config.train.steps=100000", "--config.train.log_every_steps=1")
    first = run_program("launch.train", *words, *steps)
    try:
        for line in first.stdout:
            if "step 2/" in line:
                break
        # Without a lock this one would end at once, with status 0.
        status, line = refused_here("launch.train", *words, "--config.train.steps=1")
        assert status == 2
        assert f"{workdir}: process {first.pid} on " in line
        assert "is training here" in line
        first.send_signal(signal.SIGTERM)  # it was not disturbed
        _, errors = first.communicate(timeout=60)
        assert first.returncode == 75, errors
    finally:
        first.kill()
        first.communicate()
