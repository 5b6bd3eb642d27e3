"""`make demo` in small, every stage real: a table, pictures and a label map."""

import csv
import json
import re

import pytest


def test_the_demo_ends_with_table_1_of_both_networks_without_the_papers_numbers(demo):
    output, _, printed = demo
    text = (output / "runs" / "table1.md").read_text()
    assert text in printed and "Phantoms, not patients" in text
    assert "| U-Net (7/2) | Att U-Net (7/2) |" in text and "paper" not in text
    lines = (output / "runs" / "table1.csv").read_text().splitlines()
    table = list(csv.reader(lines))
    first = {line[0]: line[1:] for line in table}
    labels = ["Pancreas DSC", "Pancreas Precision", "Pancreas Recall"]
    labels += ["Pancreas S2S Dist (mm)", "Spleen DSC", "Kidney DSC"]
    labels += ["Number of Params", "Inference Time"]
    assert list(first)[1:] == labels
    assert {len(line) for line in table} == {3}
    assert all(time.endswith(" s") for time in first["Inference Time"])
    document = json.loads((output / "runs" / "table1.json").read_text())
    assert document["number"] == 1


def test_the_demo_leaves_pictures_curves_and_a_label_map(demo):
    output, _, printed = demo
    run = output / "runs" / "80_20" / "attention_unet"
    pictures = sorted((run / "evaluation" / "test").glob("*.png"))
    assert len(pictures) == 2 and all(str(p) in printed for p in pictures)
    for picture in (*pictures, run / "progress.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    splits = json.loads((output / "data" / "splits.json").read_text())["splits"]
    case_id = splits["80_20"]["test"][0]
    assert (output / "predictions" / f"{case_id}.nii.gz").is_file()
    (maps,) = {len(list((output / "predictions").glob(f"{case_id}_attention*.nii.gz")))}
    assert maps > 0
    report = printed.partition(f"A test case, {case_id}.nii.gz:\n")[2].splitlines()
    for organ, line in zip(("spleen", "pancreas", "kidney"), report, strict=False):
        assert re.fullmatch(rf" +{organ} +\d+ ml true, +\d+ ml predicted", line), line


def test_the_demo_ends_with_its_report_and_what_its_cases_support(demo):
    output, _, printed = demo
    report = (output / "runs" / "table1.html").read_text()
    assert "attention_unet" in report and "Phantoms" in report
    told = printed.partition("Attention against none: ")[2].splitlines()[0]
    # Two test cases: fewer than any claim needs.
    assert "no difference shown" in told
    figures = sorted(p.name for p in (output / "figures").glob("*.p*"))
    assert len(figures) >= 4 and all(n in printed for n in figures if n[-1] == "g")


@pytest.mark.cluster
def test_a_second_demo_reuses_what_is_there(run_program, finish, demo):
    """Nine programs again; that each keeps what it made, its own tests say."""
    output, words, _ = demo
    kept = [
        *output.glob("scans/*/*.nii.gz"),
        *output.glob("data/*.array_record"),
        *output.glob("runs/*/*/checkpoints/*/_CHECKPOINT_METADATA"),
    ]
    assert len(kept) > 20
    before = [path.stat().st_mtime_ns for path in kept]
    status, printed, errors = finish(run_program("launch.demo", *words))
    assert status == 0, errors
    assert printed.count("finished: at step 3") == 2
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_a_table_needs_enough_cases(refused, tmp_path):
    status, line = refused("launch.demo", f"--output={tmp_path}", "--cases=3")
    assert status == 2 and "--cases=3" in line
