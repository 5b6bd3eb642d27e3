"""Processes of one host that train on data in a bucket."""

import json

import pytest

pytestmark = pytest.mark.cluster


def test_processes_of_a_host_share_one_copy_and_train_as_on_a_folder(
    gs, run_program, finish, prepared, tiny_flags, tmp_path
):
    url = f"{gs.make()}/prepared"
    gs.upload(prepared, url)
    losses = []
    for place in (str(prepared), url):
        workdir = tmp_path / f"run_{len(losses)}"
        status, output, errors = finish(
            run_program(
                "launch.cluster.local",
                "2",
                "--cpu_devices=1",
                "--",
                f"--data={place}",
                f"--workdir={workdir}",
                f"--cache_dir={tmp_path / 'cache'}",
                *tiny_flags,
                "--config.train.steps=3",
                "--config.train.log_every_steps=1",
            )
        )
        assert status == 0, output + errors
        assert (output + errors).count(f"files of {url} (") == len(losses)
        config = json.loads((workdir / "config.json").read_text())
        assert config["config"]["data"]["directory"] == place
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        losses.append([row["loss"] for row in found if "loss" in row])
    assert len(losses[0]) == 3 and losses[0] == losses[1]
