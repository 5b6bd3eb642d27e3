"""Table 3 on networks trained before: as they are, on other scans of the pancreas."""

import csv
import json
import shutil

import pytest

from tests.launch.tables_in_files import (
    STEPS,
    rows,
    run,
    write_evaluation,
    write_training,
)


@pytest.fixture(scope="module")
def table_3(trained, prepared, tiny_flags, tmp_path_factory):
    """(workdir, sources): the stage bft evaluated, aft as if it were trained."""
    workdir = tmp_path_factory.mktemp("runs3")
    sources = tmp_path_factory.mktemp("runs1") / "80_20"
    for network in ("unet", "attention_unet"):
        shutil.copytree(trained[0], sources / network)
    words = [
        "--table=3",
        f"--data={prepared}",
        f"--workdir={workdir}",
        f"--sources={sources}",
        "--pictures=0",
        *tiny_flags,
        f"--config.train.steps={STEPS}",
    ]
    for row in rows(words, ("aft",)):
        if row.entry.split == "aft":
            write_training(row, prepared)
            write_evaluation(row, prepared)
    run([*words, "--splits=bft,aft"])
    return workdir, sources, words


def test_table_3_measures_before_and_after_fine_tuning(table_3):
    workdir, _, _ = table_3
    lines = list(csv.reader((workdir / "table3.csv").read_text().splitlines()))
    headings = ("Dice Score", "Precision", "Recall", "S2S Dist (mm)")
    assert set(headings) <= set(lines[0])
    ours = [line for line in lines[1:] if ", paper (" not in line[0]]
    assert len(lines[1:]) == 2 * len(ours)  # the paper's have a line of their own
    by_name = {line[0].split(" (")[0]: line[1:] for line in ours}
    assert list(by_name) == [
        f"{stage} {network}"
        for stage in ("BFT", "AFT")  # SCR was not requested
        for network in ("U-Net", "Attention U-Net")
    ]
    text = (workdir / "table3.md").read_text()
    assert "0.831 ± 0.038" in text  # the paper's
    assert "Inference time" not in text


def test_table_3_says_what_it_was_tested_on_and_what_its_sources_have_seen(
    table_3, prepared
):
    """Both tables are of the same ten scans here."""
    workdir, _, _ = table_3
    splits = json.loads((prepared / "splits.json").read_text())["splits"]
    seen = {*splits["80_20"]["train"], *splits["80_20"]["validation"]}
    tested = splits["75_25"]["test"]
    known = len(seen.intersection(tested))
    assert known  # or the test tests nothing
    text = (workdir / "table3.md").read_text()
    assert f"10 cases of {prepared}" in text.splitlines()[0]
    note = f"trained or validated on {known} of these {len(tested)} test cases"
    assert text.count(note) == 1


def test_before_fine_tuning_nothing_is_trained(table_3, prepared):
    workdir, sources, _ = table_3
    splits = json.loads((prepared / "splits.json").read_text())["splits"]
    for network in ("unet", "attention_unet"):
        folder = workdir / "bft" / network
        assert not (folder / "checkpoints").exists()
        evaluation = folder / "evaluation" / "test"
        lines = (evaluation / "cases.jsonl").read_text().splitlines()
        assert {json.loads(line)["case_id"] for line in lines} == {
            *splits["75_25"]["test"]
        }
        record = json.loads((evaluation / "evaluation.json").read_text())
        assert record["workdir"] == str(sources / network)


def test_an_evaluated_table_is_made_again_without_evaluating(table_3):
    workdir, _, words = table_3
    before = (workdir / "table3.json").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in workdir.glob("*/*/evaluation/test/*")}
    run([*words, "--splits=bft,aft", "--assemble"])
    assert (workdir / "table3.json").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in times} == times
