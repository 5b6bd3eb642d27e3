"""`launch.tables`: its commands, and tables of trainings that ran anywhere."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from attunet_jax.errors import BadArguments, BadData, Interrupted
from launch import evaluate, train
from launch.child import run_program
from tests.launch.tables_in_files import (
    STEPS,
    rows,
    run,
    write_evaluation,
    write_training,
)

SHORT = f"--config.train.steps={STEPS}"
NETWORKS = ("unet", "attention_unet")


@pytest.fixture
def words(prepared, tiny_flags, tmp_path):
    """The flags of a table in a new folder."""
    return [f"--data={prepared}", f"--workdir={tmp_path}", *tiny_flags, SHORT]


def fill(words, requested, data, *, seeds=1):
    """Writes all rows of a table; returns (network, split, seed) -> Dice."""
    found = {}
    for row in rows(words, requested, seeds):
        write_training(row, data)
        dice = write_evaluation(row, data)
        found[row.entry.network, row.split, row.seed] = dice
    return found


def column(folder, number, metric="dice"):
    """(network, split) -> the mean in tableN.json."""
    table = json.loads((folder / f"table{number}.json").read_text())
    (quantity,) = (
        q
        for q in table["quantities"]
        if (q["organ"], q["metric"]) == ("pancreas", metric)
    )
    cells = zip(table["entries"], quantity["cells"], strict=True)
    return {(e["network"], e["split"]): cell["ours"] for e, cell in cells}


def test_each_printed_command_trains_and_evaluates_exactly_one_row(
    words, prepared, tmp_path, capsys
):
    run([*words, "--print_commands"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 4 and "4 commands" in printed.err
    seen = []
    for line in lines:
        training, evaluation = line.split(" && ")
        config_words = shlex.split(training.partition("launch.train ")[2])
        values = train.FLAGS.parse(config_words)
        config = values.config
        assert config.train.steps == STEPS and config.model.widths == (4, 6)
        assert config.model.sub_gates == (2 if config.name == "attention_unet" else 0)
        assert config.classes == ("background", "spleen", "pancreas", "kidney")
        assert (values.data, config.seed) == (prepared, 0)
        assert values.workdir == tmp_path / config.data.split / config.name
        scored = evaluate.FLAGS.parse(
            shlex.split(evaluation.partition("launch.evaluate ")[2])
        )
        assert scored.workdir == values.workdir and scored.timing
        seen.append((config.name, config.data.split))
    assert seen == [(n, s) for s in ("80_20", "20_80") for n in NETWORKS]
    assert list(tmp_path.iterdir()) == []
    # What is finished needs no command; what is trained, no training.
    first, second, *_ = rows(["--table=1", *words], ("80_20", "20_80"))
    for row in (first, second):
        write_training(row, prepared)
    write_evaluation(first, prepared)
    run([*words, "--print_commands", "--launcher=launch/cluster/local.sh 2 --"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"python -m launch.evaluate --workdir={second.folder}")
    assert lines[1].startswith("launch/cluster/local.sh 2 -- --config=")


def test_commands_of_seeds_stages_and_folds_say_what_differs(words, tmp_path, capsys):
    asked = {
        ("--table=2", "--seeds=2"): [
            ("80_20/unet_wide", 0, "80_20", 4),
            ("80_20/unet_wide_seed_1", 1, "80_20", 4),
            ("80_20/unet_huge", 0, "80_20", 4),
            ("80_20/unet_huge_seed_1", 1, "80_20", 4),
        ],
        ("--table=3", "--sources=TABLE1", "--splits=aft,scr"): [
            ("aft/unet", 0, "75_25", 2),
            ("aft/attention_unet", 0, "75_25", 2),
            ("scr/unet", 0, "75_25", 2),
            ("scr/attention_unet", 0, "75_25", 2),
        ],
        ("--table=4",): [
            (f"fold_{k}/attention_unet", 0, f"fold_{k}", 2) for k in range(1, 6)
        ],
    }
    for flags, expected in asked.items():
        run([*words, *flags, "--print_commands"])
        found = []
        for line in capsys.readouterr().out.splitlines():
            training = line.split(" && ")[0].partition("launch.train ")[2]
            values = train.FLAGS.parse(shlex.split(training))
            config = values.config
            place = str(values.workdir.relative_to(tmp_path))
            found.append((place, config.seed, config.data.split, len(config.classes)))
            source = f"TABLE1/{config.name}" if place.startswith("aft/") else ""
            assert config.init_from == source
        assert found == expected


def test_a_part_of_a_table_is_merged_with_what_is_there(words, prepared, tmp_path):
    whole = fill(["--table=1", *words], ("80_20", "20_80"), prepared)
    run([*words, "--assemble", "--splits=80_20"])
    found = column(tmp_path, 1)
    assert {(*key, 0) for key in found} == set(whole)
    for key, cell in found.items():
        assert cell["mean"] == pytest.approx(np.mean(whole[*key, 0]), abs=1e-12)


def test_tables_on_both_grids_lie_beside_each_other(
    words, prepared, scan_folder, tmp_path
):
    scan_grid = ["--grid=scan", f"--truth={scan_folder}"]
    made = {}
    for name, more in (("table1", []), ("table1_on_scan_grid", scan_grid)):
        row, *_ = rows(["--table=1", *words, *more], ("80_20",))
        if not more:
            write_training(row, prepared)
        write_evaluation(row, prepared, grid="scan" if more else "prepared")
        run([*words, *more, "--assemble", "--allow_missing"])
        made[name] = (tmp_path / f"{name}.md").read_text()
    first, second = made
    assert (tmp_path / f"{first}.md").read_text() == made[first] != made[second]
    for name in made:
        assert (tmp_path / f"{name}.html").exists()
    tables = json.loads((tmp_path / "provenance.json").read_text())["tables"]
    assert set(tables) == {"1", "1_on_scan_grid"}


def test_a_page_that_cannot_be_written_is_an_error_after_the_table(
    words, prepared, tmp_path
):
    row, *_ = rows(["--table=1", *words], ("80_20",))
    write_training(row, prepared)
    write_evaluation(row, prepared)
    (tmp_path / "table1.html").mkdir()
    with pytest.raises(BadData, match="table1.html: the report was not written"):
        run([*words, "--assemble", "--allow_missing"])
    assert (tmp_path / "table1.md").exists()


def test_what_is_missing_is_named_and_the_status_says_so(
    words, prepared, tmp_path, capsys
):
    first, second, *_ = rows(["--table=1", *words], ("80_20", "20_80"))
    with pytest.raises(BadData, match="no row can be filled: 4 not trained"):
        run([*words, "--assemble"])
    write_training(first, prepared)
    write_evaluation(first, prepared)
    write_training(second, prepared)
    missing = (
        r"1 not evaluated \(80_20/attention_unet\); "
        r"2 not trained \(20_80/unet, 20_80/attention_unet\)"
    )
    with pytest.raises(BadData, match=missing):
        run([*words, "--assemble"])
    assert list(column(tmp_path, 1)) == [("unet", "80_20")]
    text = (tmp_path / "table1.md").read_text()
    assert "Missing: 1 not evaluated" in text
    run([*words, "--assemble", "--allow_missing"])
    # An evaluation of an older checkpoint does not count.
    (first.folder / "checkpoints" / str(STEPS + 1)).mkdir()
    with pytest.raises(BadArguments, match=f"{STEPS + 1} steps, this command asks"):
        run([*words, "--assemble"])
    longer = f"--config.train.steps={STEPS + 1}"
    with pytest.raises(BadData, match="1 not evaluated .80_20/unet.; 1 trained in"):
        run([*words, "--assemble", longer])
    assert (tmp_path / "table1.md").read_text() != ""


def test_table_4_is_of_all_held_out_cases_of_five_folds(words, prepared, tmp_path):
    dice = fill(["--table=4", *words], ("5_fold",), prepared)
    assert len(dice) == 5
    run([*words, "--table=4", "--assemble"])
    together = np.concatenate(list(dice.values()))
    assert len(together) == 10  # each case once
    cell = column(tmp_path, 4)["attention_unet", "5_fold"]
    assert cell["n"] == 10
    assert cell["mean"] == pytest.approx(together.mean(), abs=1e-12)
    shutil.rmtree(tmp_path / "fold_3")
    with pytest.raises(BadData, match="1 not trained .fold_3/attention_unet."):
        run([*words, "--table=4", "--assemble"])
    assert "1 of 5 runs are missing" in (tmp_path / "table4.md").read_text()


def test_seeds_are_trained_in_folders_of_their_own_and_taken_together(
    words, prepared, tmp_path
):
    dice = fill(["--table=1", *words], ("80_20",), prepared, seeds=3)
    assert {seed for *_, seed in dice} == {0, 1, 2}
    folders = {path.name for path in (tmp_path / "80_20").iterdir()}
    further = {f"{n}_seed_{seed}" for n in NETWORKS for seed in (1, 2)}
    assert folders == {*NETWORKS, *further}
    run([*words, "--assemble", "--splits=80_20", "--seeds=3"])
    for (network, split), cell in column(tmp_path, 1).items():
        scores = [dice[network, split, seed] for seed in range(3)]
        assert cell["mean"] == pytest.approx(np.mean(scores), abs=1e-12)
    # A later command that needs one seed does not take the others out of the table.
    before = column(tmp_path, 1)
    run([*words, "--assemble", "--splits=80_20"])
    assert column(tmp_path, 1) == before


def test_each_number_leads_to_the_lines_that_it_is_made_of(words, prepared, tmp_path):
    fill(["--table=1", *words], ("80_20", "20_80"), prepared)
    fill(["--table=4", *words], ("5_fold",), prepared)
    run([*words, "--assemble"])
    run([*words, "--assemble", "--table=4"])
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert list(content["tables"]) == ["1", "4"]
    for number, table in content["tables"].items():
        means = column(tmp_path, number)
        checked = 0
        for entry in table["numbers"]:
            if entry["metric"] != "dice":
                continue
            values = []
            for place in entry["from"]:
                lines = (tmp_path / place["file"]).read_text().splitlines()
                found = [json.loads(lines[i - 1]) for i in place["lines"]]
                assert {line["organ"] for line in found} == {entry["organ"]}
                values += [line["dice"] for line in found]
            mean = means[entry["network"], entry["split"]]["mean"]
            assert np.mean(values) == pytest.approx(mean, abs=1e-12)
            checked += 1
        assert checked == len(means)
        sums = subprocess.run(
            ["sha256sum", prepared / "manifest.json", prepared / "splits.json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert table["data"]["manifest_sha256"] == sums[0]
        assert table["data"]["splits_sha256"] == sums[2]
        assert {network["seed"] for network in table["networks"]} == {0}


def test_somebody_elses_label_maps_are_a_row_of_their_own(
    words, prepared, scan_folder, tmp_path, capsys
):
    """The truth itself, on the scans' own grids: nothing is better."""
    fill(["--table=1", *words], ("80_20",), prepared)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    split = json.loads((prepared / "splits.json").read_text())["splits"]["80_20"]
    for case_id in split["test"]:
        shutil.copy(scan_folder / "labels" / f"{case_id}.nii.gz", theirs)
    names = {"1": "spleen", "2": "pancreas", "3": "kidney"}
    (theirs / "labels.json").write_text(json.dumps(names))
    workdir = f"--workdir={tmp_path}"
    asked = [*words, workdir, "--assemble", "--splits=80_20"]
    run([*asked, f"--add=nnU-Net:{theirs}"])
    assert "nnU-Net is not in split 20_80" not in capsys.readouterr().out
    cells = column(tmp_path, 1)
    assert list(cells) == [*((n, "80_20") for n in NETWORKS), ("nnU-Net", "80_20")]
    assert (cells["nnU-Net", "80_20"]["mean"], cells["nnU-Net", "80_20"]["n"]) == (1, 2)
    table = json.loads((tmp_path / "provenance.json").read_text())["tables"]["1"]
    (added,) = table["added"]
    assert added["label_maps"] == str(theirs)
    before = (tmp_path / "table1.json").read_bytes()
    next(theirs.glob("*.nii.gz")).unlink()
    with pytest.raises(BadData, match="has no label map of 1 of the 2 cases"):
        run([*asked, f"--add=nnU-Net:{theirs}"])
    with pytest.raises(BadArguments, match="is one of our networks' names"):
        run([*asked, f"--add=unet:{theirs}"])
    for wrong in ("nnU-Net", "a:b,a:c", ":b"):
        with pytest.raises(BadArguments, match="--add="):
            run([*asked, f"--add={wrong}"])
    assert (tmp_path / "table1.json").read_bytes() == before


def test_what_cannot_be_one_table_is_refused_and_nothing_is_overwritten(
    words, prepared, tmp_path
):
    fill(["--table=1", *words], ("80_20",), prepared)
    run([*words, "--assemble", "--splits=80_20"])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    refused = {
        "another --config.seed": ["--config.seed=7"],
        "another --config.model.widths": ["--config.model.widths=(4,8)"],
        "12 steps, this command asks for 6": ["--config.train.steps=6"],
        "12 steps, this command asks for 24": [
            "--config.train.steps=24",
            "--splits=20_80",
        ],
        "of another table.*learning_rate": [
            "--table=2",
            "--config.optimizer.learning_rate=0.02",
        ],
        "of another table.*train.steps": ["--table=4", "--config.train.steps=6"],
        "there are tables 1, 2, 3 and 4": ["--table=5"],
        "is for --table=4": ["--folds=ct82"],
        "has 10 cases, CT-82 has 82": ["--table=4", "--folds=ct82"],
        "--splits=90_10: there are 80_20, 20_80": ["--splits=90_10"],
        "--sources=... is needed": ["--table=3"],
        "must be an Attention U-Net": ["--config=configs/unet.py"],
        "--dry_run and --assemble": ["--dry_run", "--assemble"],
        "has no organ liver": ["--config.classes=background,liver"],
    }
    for message, flags in refused.items():
        with pytest.raises(BadArguments, match=message):
            run([*words, *flags])
    with pytest.raises(BadData, match="TABLE1/unet: no checkpoints here"):
        run([*words, "--table=3", "--sources=TABLE1"])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_data_that_cannot_fill_a_table_is_refused_before_training(
    words, prepared, tmp_path
):
    """An organ no case has, a split without cases, too few cases for folds."""
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    own = [*words[1:], f"--data={data}", f"--workdir={tmp_path / 'runs'}"]
    manifest = json.loads((data / "manifest.json").read_text())
    for case in manifest["cases"]:
        case["voxels"]["kidney"] = 0
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadArguments, match="no case has a voxel of kidney"):
        run(own)
    own.append("--config.classes=background,pancreas")
    document = json.loads((data / "splits.json").read_text())
    del document["splits"]["fold_5"]
    document["splits"]["20_80"]["train"] = []
    (data / "splits.json").write_text(json.dumps(document))
    with pytest.raises(BadArguments, match="20_80 has no train cases"):
        run(own)
    with pytest.raises(BadArguments, match="Table 4 needs 5 cases or more"):
        run([*own, "--table=4"])
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_counts_steps_hours_and_disk_of_what_is_left(
    words, prepared, tmp_path, capsys
):
    first, second, *others = rows(["--table=1", *words], ("80_20", "20_80"))
    for row, step_s in ((first, 3.0), (second, 6.0)):
        write_training(row, prepared)
        checkpoint = row.folder / "checkpoints" / str(STEPS)
        (checkpoint / "state").write_bytes(bytes(2_000_000))
        metrics = [{"step": i, "seconds_per_step": step_s + 100 * (i < 2)}
                   for i in (1, 2, 3)]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in metrics)
        (row.folder / "metrics.jsonl").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    run([*words, "--dry_run"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {line[0]: line[1:] for line in lines if line}
    assert table["80_20/unet"][:5] == [
        "12/12",
        "3.000",
        "0.00",
        "4.0",
        str(first.folder),
    ]
    # 12 steps of 6 s are 72 s: 0.02 hours; measured in the same network's other run.
    expected = ["0/12", "6.000", "0.02", "4.0", str(second.folder)]
    assert table["20_80/attention_unet"] == expected
    assert table["all"] == ["24", "0.03", "16.0"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_training_that_fails_ends_the_table_with_its_status(
    words, tmp_path, monkeypatch
):
    for status in (2, 3, 134):
        command = f"{sys.executable} -c 'raise SystemExit({status})'"
        with pytest.raises(SystemExit) as ended:
            run([*words, f"--launcher={command}"])
        assert ended.value.code == status
    assert not list(tmp_path.glob("table1.*"))


def test_a_signal_reaches_the_started_program_and_ends_both():
    code = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    handler = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); "
    with pytest.raises(Interrupted, match="SIGTERM"):
        run_program([sys.executable, "-c", handler + code])


def test_a_started_program_ends_when_its_parent_is_killed(tmp_path):
    note = tmp_path / "note"
    child = (
        "import pathlib, signal, sys, time\n"
        f"note = pathlib.Path({str(note)!r})\n"
        "def ended(*_): note.write_text('ended'); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, ended)\n"
        "note.write_text('begun')\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import sys\n"
        "from launch.child import run_program\n"
        f"run_program([sys.executable, '-c', {child!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])

    def wait_for(text):
        until_s = time.monotonic() + 30
        while not (note.exists() and note.read_text() == text):
            assert time.monotonic() < until_s, text
            time.sleep(0.02)

    wait_for("begun")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for("ended")
