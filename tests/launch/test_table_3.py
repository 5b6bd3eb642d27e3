"""Table 3 on the demo's networks: before and after fine-tuning."""

import csv
import json

import pytest

STEPS = ("--config.train.steps=2", "--config.train.evaluate_every_steps=2")


@pytest.fixture(scope="module")
def table_3(demo, demo_flags, run_program, finish, tmp_path_factory):
    output = demo[0]
    workdir = tmp_path_factory.mktemp("runs3")
    words = (
        "--table=3",
        "--config=configs/demo.py",
        f"--data={output / 'data'}",
        f"--workdir={workdir}",
        f"--sources={output / 'runs' / '80_20'}",
        "--splits=bft,aft",
        "--pictures=0",
        *demo_flags[:-2],
        *STEPS,
    )
    status, printed, errors = finish(run_program("launch.tables", *words))
    assert status == 0, errors
    return output, workdir, printed


def test_table_3_measures_before_and_after_fine_tuning(table_3):
    _, workdir, printed = table_3
    assert (workdir / "table3.md").read_text() in printed
    lines = list(csv.reader((workdir / "table3.csv").read_text().splitlines()))
    assert lines[0][1::2] == ["Dice Score", "Precision", "Recall", "S2S Dist (mm)"]
    by_name = {line[0].split(" (")[0]: line[1:] for line in lines[1:]}
    assert list(by_name) == [
        f"{stage} {network}"
        for stage in ("BFT", "AFT")  # SCR was not requested
        for network in ("U-Net", "Attention U-Net")
    ]
    assert by_name["AFT Attention U-Net"][1] == "0.831 ± 0.038"  # the paper's
    assert all("±" in line[0] for line in by_name.values())
    assert "Inference time" not in printed.split("## Table 3")[1]


def test_table_3_says_what_it_was_tested_on_and_what_its_sources_have_seen(table_3):
    """Both tables are of the same ten phantoms here."""
    output, workdir, printed = table_3
    splits = json.loads((output / "data" / "splits.json").read_text())["splits"]
    seen = {*splits["80_20"]["train"], *splits["80_20"]["validation"]}
    tested = splits["75_25"]["test"]
    known = len(seen.intersection(tested))
    assert known  # or the test tests nothing
    text = (workdir / "table3.md").read_text()
    assert f"10 cases of {output / 'data'}" in text.splitlines()[0]
    note = f"trained or validated on {known} of these {len(tested)} test cases"
    assert text.count(note) == 1
    # Said before anything is trained.
    assert note in printed.split("== ")[0]


def test_before_fine_tuning_nothing_is_trained_and_after_it_two_outputs_are(table_3):
    output, workdir, printed = table_3
    assert not (workdir / "bft" / "unet" / "checkpoints").exists()
    assert printed.count("begins from ") == 2
    for network in ("unet", "attention_unet"):
        run = json.loads((workdir / "aft" / network / "config.json").read_text())
        assert run["config"]["classes"] == ["background", "pancreas"]
        assert len(run["outputs"]) == 4
        assert run["config"]["init_from"] == str(output / "runs" / "80_20" / network)
        rows = (
            workdir / "aft" / network / "evaluation" / "test" / "cases.jsonl"
        ).open()
        with rows:
            tested = {json.loads(row)["case_id"] for row in rows}
        splits = json.loads((output / "data" / "splits.json").read_text())["splits"]
        assert tested == set(splits["75_25"]["test"])


@pytest.mark.parametrize(
    "words, message",
    [
        (("--table=4",), "there are tables 1, 2 and 3"),
        (("--table=3",), "--sources=... is needed"),
        (("--table=1", "--splits=90_10"), "--splits=90_10: there are 80_20, 20_80"),
        (("--table=1", "--config=configs/unet.py"), "must be an Attention U-Net"),
    ],
)
def test_arguments_without_a_table_are_refused(
    refused, prepared, tmp_path, words, message
):
    status, line = refused(
        "launch.tables", f"--data={prepared}", f"--workdir={tmp_path / 'r'}", *words
    )
    assert status == 2 and message in line
    assert not (tmp_path / "r").exists()
