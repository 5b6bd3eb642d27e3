"""launch.report: a page of any evaluations, and one line where it cannot be made."""

import json

import pytest

from attunet_jax.errors import exit_status
from launch import report


@pytest.fixture
def run(capsys):
    """(exit status, stdout, stderr) of the program run here."""

    def call(*words):
        def program():
            return report.main(report.FLAGS.parse([*map(str, words)]))

        status = exit_status(program)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def evaluated(tmp_path):
    """Writes an evaluation: Dice of the pancreas in a folder's cases.jsonl."""

    def write(name, dice, **more):
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            {"case_id": case, "organ": "pancreas", "dice": value, **more}
            for case, value in dice.items()
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "cases.jsonl").write_text(text, encoding="utf-8")
        return folder

    return write


def test_any_evaluations_become_one_page_with_their_subgroups(run, evaluated, tmp_path):
    first = evaluated("first", {f"c{i}": 0.5 + i / 40 for i in range(8)})
    second = evaluated("second", {f"c{i}": 0.6 + i / 40 for i in range(8)})
    groups = tmp_path / "cases.csv"
    groups.write_text(
        "case_id,sex\n" + "".join(f"c{i},{'fm'[i % 2]}\n" for i in range(9))
    )
    page = tmp_path / "there" / "page.html"
    status, printed, errors = run(
        first, second, f"--groups={groups}", f"--output={page}"
    )
    assert (status, errors) == (0, "") and str(page) in printed
    text = page.read_text(encoding="utf-8")
    # Means of f: c0, c2, c4, c6; of m: c1, c3, c5, c7.
    assert all(mean in text for mean in ("0.575", "0.600", "0.675", "0.700"))
    assert "pancreas: second over first by 0.100" in text
    assert text.count("to be filled by the authors") > 10


def test_folders_of_one_name_are_one_network_with_several_seeds(
    run, evaluated, tmp_path
):
    def dice(shift):
        return {f"c{i}": 0.5 + i / 40 + shift for i in range(8)}

    seeds = [evaluated(f"seed{i}", dice(i / 10)) for i in range(2)]
    other = evaluated("other", dice(0.3))
    page = tmp_path / "page.html"
    words = (f"unet={seeds[0]}", f"unet={seeds[1]}", f"wide={other}")
    status, _, errors = run(*words, f"--output={page}")
    assert (status, errors) == (0, "")
    text = page.read_text(encoding="utf-8")
    # The mean of 0.5 to 0.675 is 0.5875; over both seeds 0.05 more, of the other 0.3.
    assert "pancreas: wide over unet by 0.250" in text
    status, _, errors = run(f"seed1={seeds[0]}", seeds[1], f"--output={page}")
    assert status == 2 and "a name given to another" in errors


def test_what_cannot_be_reported_is_one_line_and_leaves_no_page(
    run, evaluated, tmp_path
):
    dice = {f"c{i}": 0.5 + i / 40 for i in range(8)}
    first, other = evaluated("first", dice), evaluated("other", {"x": 0.5, "y": 0.6})
    coarse = evaluated("coarse", dice, grid="scan")
    groups = tmp_path / "cases.csv"
    groups.write_text("case_id,sex\n" + "".join(f"c{i},f\n" for i in range(7)))
    page = tmp_path / "page.html"
    for words, wrong in {
        (first, f"--groups={groups}"): f"{groups}: has no line for case c7",
        (first, f"--groups={tmp_path / 'none.csv'}"): "none.csv: cannot be read",
        (first, other): "no common case",
        (first, coarse): "--grid",
        (first, first): "the same evaluation",
        (first, f"--data={tmp_path}"): "no such file",
        (tmp_path,): "holds no cases.jsonl",
        (): "RUN",
    }.items():
        status, printed, errors = run(*words, f"--output={page}")
        assert status in (2, 3) and printed == "", words
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        assert wrong in errors, errors
        assert not page.exists()
