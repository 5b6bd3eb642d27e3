"""`launch.tables` with its runs in gs://, against a real server on loopback."""

import json
import shlex

import pytest

from attunet_jax.errors import BadData
from launch import evaluate
from tests.launch.tables_in_files import (
    STEPS,
    rows,
    run,
    write_evaluation,
    write_training,
)

SHORT = f"--config.train.steps={STEPS}"
RECORD = "80_20/attention_unet/evaluation/test/evaluation.json"


def numbers(text):
    return json.loads(text)["quantities"]


def test_a_table_of_runs_in_a_bucket_is_that_of_the_same_runs_here(
    gs, prepared, tiny_flags, tmp_path, capsys
):
    here, there, cache = tmp_path / "runs", f"{gs.make()}/runs", tmp_path / "cache"
    same = [f"--data={prepared}", *tiny_flags, SHORT, "--splits=80_20"]
    for row in rows([*same, f"--workdir={here}"], ("80_20",)):
        write_training(row, prepared)
        checkpoint = row.folder / "checkpoints" / str(STEPS)
        (checkpoint / "commit_success.txt").write_text("whole")
        (checkpoint / "state").write_bytes(b"1" * 1_000_000)
        write_evaluation(row, prepared)
    gs.upload(here, there)
    # A record is missing; a step without its mark was cut short and is none.
    gs.remove(f"{there}/{RECORD}")
    gs.write(f"{there}/80_20/unet/checkpoints/99/state", b"half")
    words = [*same, f"--workdir={there}", f"--cache_dir={cache}"]

    run([*words, "--print_commands"])
    (line,) = capsys.readouterr().out.splitlines()
    scored = evaluate.FLAGS.parse(shlex.split(line)[3:])
    assert scored.workdir == f"{there}/80_20/attention_unet"
    run([*words, "--dry_run"])
    assert f"12/12  -       0.00   {2 * 1.0:.1f}" in capsys.readouterr().out
    with pytest.raises(BadData, match=f"{there} is not whole: 1 not evaluated"):
        run([*words, "--assemble"])

    gs.write(f"{there}/{RECORD}", (here / RECORD).read_bytes())
    capsys.readouterr()
    run([*words, "--assemble"])
    printed = capsys.readouterr().out
    run([*same, f"--workdir={here}", "--assemble"])
    made = {k: v for k, v in gs.contents(there).items() if "/" not in k}
    assert made.keys() == {path.name for path in here.iterdir() if path.is_file()}
    assert numbers(made["table1.json"]) == numbers((here / "table1.json").read_text())
    for name, content in made.items():
        assert f"{there}/{name}" in printed
        assert str(cache).encode() not in content, name
    assert f"{there}/80_20/unet".encode() in made["table1.md"]
    assert not [*cache.rglob("table1.json")]  # all is uploaded

    # Table 3 begins from runs of a bucket.
    third = ["--table=3", f"--sources={there}/80_20", "--splits=bft,aft"]
    here_too = [f"--workdir={tmp_path / 'third'}", f"--cache_dir={cache}"]
    capsys.readouterr()
    run([*same[:-1], *here_too, *third, "--print_commands"])
    commands = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [next(word for word in words if there in word) for words in commands] == [
        f"--workdir={there}/80_20/unet",
        f"--workdir={there}/80_20/attention_unet",
        f"--config.init_from={there}/80_20/unet",
        f"--config.init_from={there}/80_20/attention_unet",
    ]


@pytest.mark.cluster
def test_tables_1_and_3_are_trained_in_a_bucket_and_resumed_on_another_machine(
    gs, prepared, run_program, finish, tiny_flags, tmp_path
):
    """All is killed in the second training; another machine goes on."""
    there = f"{gs.make()}/runs"
    words = [
        "launch.tables",
        f"--data={prepared}",
        f"--workdir={there}",
        *tiny_flags,
        "--config.classes=background,pancreas",
        "--config.train.steps=6",
        "--config.train.evaluate_every_steps=3",
        "--config.train.keep_steps=1,2",
        "--splits=80_20",
        "--label_maps",
    ]
    first = run_program(*words, f"--cache_dir={tmp_path / 'first'}")
    for line in first.stdout:
        if "80_20/attention_unet" in line:
            break
    first.kill()
    finish(first)
    before = gs.contents(there)
    assert "80_20/unet/checkpoints/6/commit_success.txt" in before
    assert "80_20/attention_unet/evaluation/test/cases.jsonl" not in before

    another = f"--cache_dir={tmp_path / 'second'}"
    status, output, errors = finish(run_program(*words, another))
    assert status == 0, errors
    assert "80_20/unet: finished" in output and str(tmp_path) not in output
    made = gs.contents(there)
    assert {"table1.md", "table1.html", "provenance.json"} <= made.keys()
    for network in ("unet", "attention_unet"):
        folder = f"80_20/{network}/evaluation/test"
        assert f"{folder}/evaluation.json" in made
        assert any(name.startswith(f"{folder}/label_maps/") for name in made)
    status, output, errors = finish(run_program(*words, another))
    assert status == 0 and "training 1 of" not in output, errors

    third = [*words[:2], f"--workdir={there}/3", *words[3:-2], "--table=3"]
    third += [f"--sources={there}/80_20", "--splits=bft,aft", "--allow_missing"]
    status, output, errors = finish(run_program(*third, another))
    assert status == 0, errors
    assert "table3.md" in gs.contents(f"{there}/3")
