"""Runs in gs://, against a real server on loopback."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.checkpoint import open_existing
from attunet_jax.storage import run_folder

CLOCKS = ("seconds", "steps_per_second", "cases_per_second", "data_wait_share")
KILLS_ITSELF = """
import os, signal, time

def start(workdir, config):
    def on_metrics(step, metrics):
        if step == 8:
            time.sleep(2)  # the checkpoint of step 6 is whole
            os.kill(os.getpid(), signal.SIGKILL)
    return on_metrics
"""

KILLED_ONCE = """
import os, signal
from pathlib import Path

def start(workdir, config):
    def on_metrics(step, metrics):
        done = Path(__file__).with_suffix(".done")
        if step == 5 and not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return on_metrics
"""


def without_clocks(content: bytes) -> list[dict]:
    rows = [json.loads(line) for line in content.decode().splitlines()]
    rows = [row for row in rows if "goodput" not in row]  # of times alone
    return [{k: v for k, v in r.items() if not k.startswith(CLOCKS)} for r in rows]


def arrays_of(workdir: Path | str, step: int = 12) -> list[np.ndarray]:
    """All arrays of a step, as Orbax alone reads them."""
    import jax
    import orbax.checkpoint as ocp
    from etils import epath

    place = epath.Path(workdir) / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        kinds = jax.tree.map(lambda _: as_numpy, reader.metadata(place).item_metadata)
        tree = reader.restore(place, restore_args=kinds)
    return jax.tree.leaves(tree)


@pytest.mark.cluster
def test_run_in_a_bucket_is_resumed_on_another_machine_and_equals_a_local_one(
    gs, trained, prepared, run_program, finish, tiny_flags, tmp_path
):
    local, _ = trained
    bucket = gs.make()
    url = f"{bucket}/runs/tiny"
    (tmp_path / "hook.py").write_text(KILLS_ITSELF)
    words = (
        "launch.train",
        "--config=configs/attention_unet.py",
        f"--data={prepared}",
        f"--workdir={url}",
        *tiny_flags,
        "--config.train.steps=12",
        "--config.train.log_every_steps=4",
        "--config.train.evaluate_every_steps=6",
        "--config.train.keep_steps=3",
    )
    machines = [f"--cache_dir={tmp_path / name}" for name in ("first", "second")]
    hook = f"--on_metrics={tmp_path / 'hook.py'}:start"
    status, output, errors = finish(run_program(*words, machines[0], hook))
    assert status == -9, errors
    killed = gs.contents(url)
    assert "checkpoints/6/commit_success.txt" in killed
    assert [r["step"] for r in without_clocks(killed["metrics.jsonl"])] == [4, 6]

    status, output, errors = finish(run_program(*words, machines[1]))
    assert status == 0, errors
    assert "continuing at step 6" in output and str(tmp_path) not in output
    there = gs.contents(url)
    assert {"config.json", "environment.json", "progress.png"} <= there.keys()
    assert any(name.startswith("tensorboard/events.out") for name in there)
    assert without_clocks(there["metrics.jsonl"]) == without_clocks(
        (local / "metrics.jsonl").read_bytes()
    )
    for ours, theirs in zip(arrays_of(url), arrays_of(local), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    status, output, errors = finish(run_program(*words, machines[0]))
    assert status == 0 and "this run is finished" in output, errors
    evaluate = ("launch.evaluate", f"--data={prepared}")
    for workdir in (local, url):
        output = ["--output", tmp_path / "scores"] if workdir == local else []
        status, printed, errors = finish(
            run_program(*evaluate, f"--workdir={workdir}", *output, machines[1])
        )
        assert status == 0, errors
    assert f"report: {url}/evaluation/test/report.html" in printed
    assert str(tmp_path) not in printed
    scores = gs.contents(f"{url}/evaluation/test")
    assert {"evaluation.json", "summary.md", "report.html"} <= scores.keys()
    assert without_clocks(scores["cases.jsonl"]) == without_clocks(
        (tmp_path / "scores" / "cases.jsonl").read_bytes()
    )
    assert json.loads(scores["evaluation.json"])["workdir"] == url


@pytest.mark.cluster
def test_two_processes_one_of_them_killed_train_into_a_bucket_as_into_a_folder(
    gs, trained, prepared, run_program, finish, tiny_flags, tmp_path
):
    bucket = gs.make()
    gs.upload(prepared, f"{bucket}/data")
    gs.upload(trained[0], f"{bucket}/first")  # a run that was copied there
    (tmp_path / "hook.py").write_text(KILLED_ONCE)
    local, url = tmp_path / "run", f"{bucket}/run"
    for workdir, data, source, more in (
        (local, prepared, trained[0], ()),
        (url, f"{bucket}/data", f"{bucket}/first", ("--on_metrics",)),
    ):
        status, output, errors = finish(
            run_program(
                "launch.cluster.local",
                *("2", "--cpu_devices=1", "--max_restarts=1", "--"),
                f"--data={data}",
                f"--workdir={workdir}",
                f"--config.init_from={source}",
                f"--cache_dir={tmp_path / 'cache'}",
                *tiny_flags,
                "--config.train.steps=6",
                "--config.train.log_every_steps=1",
                "--config.train.checkpoint_every_steps=2",
                "--config.train.evaluate_every_steps=6",
                *(f"{flag}={tmp_path / 'hook.py'}:start" for flag in more),
            )
        )
        said = output + errors
        assert status == 0, said
        assert f"begins from {source}, step 12" in said
    assert "process 0 was ended by SIGKILL" in said and "continuing at step" in said
    assert str(tmp_path) not in said.replace(f"into {tmp_path}", "")
    there = gs.contents(url)
    assert {"logs/process_0.log", "logs/process_1.log"} <= there.keys()
    assert without_clocks(there["metrics.jsonl"]) == without_clocks(
        (local / "metrics.jsonl").read_bytes()
    )
    for ours, theirs in zip(arrays_of(url, 6), arrays_of(local, 6), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.cluster
def test_imported_weights_and_figures_in_a_bucket_are_those_of_a_folder(
    gs, gated, published_file, prepared, run_program, finish, scan_folder, tmp_path
):
    bucket = gs.make()
    gs.upload(gated, f"{bucket}/gated")
    gs.upload(prepared, f"{bucket}/data")

    def run(program, *words):
        cache = f"--cache_dir={tmp_path / 'cache'}"
        status, output, errors = finish(run_program(program, *words, cache))
        assert status == 0, errors
        assert str(tmp_path / "cache") not in output
        return output

    local, url = tmp_path / "imported", f"{bucket}/imported"
    scan = scan_folder / "images" / "ball_0.nii.gz"
    for workdir in (local, url):
        words = (f"--input={published_file}", f"--workdir={workdir}")
        run("launch.import_weights", *words, "--spacing_mm=4")
        maps = tmp_path / "maps" if workdir == local else f"{bucket}/maps"
        words = (f"--workdir={workdir}", f"--input={scan}", f"--output={maps}")
        run("launch.predict", *words)
    there = gs.contents(bucket)
    made = (tmp_path / "maps" / "ball_0.nii.gz").read_bytes()
    assert there["maps/ball_0.nii.gz"] == made
    assert there["imported/config.json"] == (local / "config.json").read_bytes()

    words = (f"--workdir={bucket}/gated", f"--data={bucket}/data", "--figures=4")
    printed = run("launch.figures", *words)
    assert f"wrote {bucket}/gated/figures/figure_4.png" in printed
    figures = gs.contents(f"{bucket}/gated/figures")
    assert figures.keys() == {"figure_4.png", "figure_4.pdf"}
    assert figures["figure_4.png"].startswith(b"\x89PNG")


def test_checkpoints_of_a_bucket_are_whole_or_not_there(gs, tmp_path):
    """A step that a kill cut short is none, and is written again."""
    import jax.numpy as jnp

    from attunet_jax.checkpoint import Checkpoints
    from attunet_jax.predict.record import asked

    url = f"{gs.make()}/runs/a"
    state = {"w": jnp.arange(6.0).reshape(2, 3)}
    files = ("config.json", "metrics.jsonl")
    with run_folder.written(url, tmp_path / "a", user="train-0", files=files) as run:
        (run.folder / "config.json").write_text("{}")
        run.send()
        gs.write(f"{url}/checkpoints/2/state/manifest.ocdbt", b"half of one")
        assert run_folder.whole_steps(run.folder) == []
        with Checkpoints(
            run.folder / "checkpoints", keep_latest=1, keep_best=1, clean_up=True
        ) as checkpoints:
            for step in (1, 2):
                checkpoints.save(
                    step,
                    {"w": state["w"] * step},
                    position={"step": step},
                    run={"name": "a"},
                    metrics={"dice": 1 - 0.1 * step},
                )
        assert run_folder.whole_steps(run.folder) == [1, 2]
        first = asked(run.folder, {})
        (run.folder / "metrics.jsonl").write_text('{"step": 2}\n')
    names = gs.contents(url).keys()
    assert {"config.json", "metrics.jsonl"} == {n for n in names if "/" not in n}
    assert not [*(tmp_path / "a").rglob("metrics.jsonl")]

    with run_folder.read(url, tmp_path / "b", files=files) as folder:
        assert (folder / "metrics.jsonl").read_text() == '{"step": 2}\n'
        assert asked(folder, {}) == first
        with open_existing(folder) as checkpoints:
            assert checkpoints.best() == 1 and checkpoints.run(2) == {"name": "a"}
            restored, position = checkpoints.restore(2, state)
    assert position == {"step": 2}
    np.testing.assert_array_equal(restored["w"], [[0, 2, 4], [6, 8, 10]])
