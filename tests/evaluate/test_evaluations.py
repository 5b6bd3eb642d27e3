"""Reads evaluations that were written by hand."""

import json
from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.evaluations import read_evaluation, read_evaluations

ROWS = [{"case_id": "a", "organ": "liver", "dice": 0.5}]


def write(folder: Path, rows=ROWS) -> Path:
    folder.mkdir(parents=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_run_and_any_folder_with_cases_are_read(tmp_path):
    folder = write(tmp_path / "runs" / "unet" / "evaluation" / "test")
    run = read_evaluation(tmp_path / "runs" / "unet")
    assert (run.name, run.folder, run.rows) == ("unet", folder, ROWS)
    assert read_evaluation(folder).name == "unet"
    other = write(tmp_path / "runs" / "unet" / "evaluation" / "validation")
    assert read_evaluation(other).name == "unet (validation)"
    assert read_evaluation(write(tmp_path / "nnunet")).name == "nnunet"


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [tmp_path / split / "unet" for split in ("80_20", "20_80")]
    for path in paths:
        write(path / "evaluation" / "test")
    paths.append(write(tmp_path / "other"))
    names = [evaluation.name for evaluation in read_evaluations(paths)]
    assert names == ["80_20/unet", "20_80/unet", "other"]


def test_an_evaluation_given_twice_is_refused(tmp_path):
    folder = write(tmp_path / "unet" / "evaluation" / "test")
    with pytest.raises(BadArguments, match="is the same evaluation as"):
        read_evaluations([tmp_path / "unet", folder])


def test_a_folder_without_an_evaluation_says_what_to_do(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / ".cases.jsonl.new").touch()
    write(tmp_path / "other" / "evaluation" / "test_on_scan_grid")
    for name, words in (
        ("other", "name one of its others: .*/test_on_scan_grid$"),
        ("none", "no such folder"),
        (".", "holds no cases.jsonl"),
        ("run", "run python -m launch.evaluate --workdir="),
        ("stopped", "was interrupted"),
    ):
        with pytest.raises(BadArguments, match=words):
            read_evaluation(tmp_path / name)


def test_lines_that_are_no_scores_are_named(tmp_path):
    bad = [
        ("{", "line 2 is not JSON"),
        ([], "line 2: is not a case's scores"),
        ({"organ": "liver"}, "line 2: case_id is missing"),
        (ROWS[0], "case a has liver twice"),
        ({"case_id": "b", "organ": "liver", "dice": "x"}, "dice is 'x'"),
        ('{"case_id": "b", "organ": "liver", "dice": NaN}', "dice is nan"),
    ]
    for i, (row, words) in enumerate(bad):
        with pytest.raises(BadData, match=words):
            read_evaluation(write(tmp_path / str(i), [*ROWS, row]))
    with pytest.raises(BadData, match="has no rows"):
        read_evaluation(write(tmp_path / "empty", []))
    seeds = [{**ROWS[0], "seed": seed} for seed in (0, 1)]
    assert read_evaluation(write(tmp_path / "seeds", seeds)).rows == seeds
