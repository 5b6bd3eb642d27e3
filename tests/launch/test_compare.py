"""launch.compare on evaluations that were written by hand."""

import csv
import json
from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments
from launch import compare

DICE = {"unet": [0.5] * 6, "attention": [0.51, 0.52, 0.54, 0.58, 0.6, 0.7]}


def write(folder: Path, dice, organs=("pancreas",), first_case=0, **more) -> Path:
    """Writes an evaluation in which all organs have the same scores."""
    folder.mkdir(parents=True)
    rows = [
        {
            "case_id": f"c{first_case + i}",
            "organ": organ,
            **dict.fromkeys(("dice", "precision", "recall"), value),
            "surface_distance_mm": 1 - value,
            "hausdorff95_mm": 2.0,
            "truth_vox": 100,
            "prediction_vox": 100,
            **more,
        }
        for i, value in enumerate(dice)
        for organ in organs
    ]
    (folder / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def run(*words) -> None:
    compare.main(compare.FLAGS.parse([str(word) for word in words]))


def reason(*words) -> str:
    with pytest.raises(BadArguments) as error:
        run(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def runs(tmp_path):
    for name, dice in DICE.items():
        write(tmp_path / name / "evaluation" / "test", dice)
    return [tmp_path / name for name in DICE]


def test_two_runs_are_compared_and_the_comparison_is_written(runs, tmp_path, capsys):
    run(*runs, f"--output={tmp_path / 'out'}", "--metrics=dice,hausdorff95_mm")
    printed = capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        *("compare.md", "compare.csv", "compare.json", "compare.tex"),
        "compare_cases.csv",
    }
    text = (tmp_path / "out" / "compare.md").read_text()
    assert text in printed and text.startswith("## unet and attention on 6 cases")
    lines = [x for x in text.splitlines() if x.startswith("| attention - unet |")]
    # Two comparisons: Holm doubles the smaller p, 2 / 2**6.
    assert lines[0].startswith("| attention - unet | Pancreas DSC | **+0.075** [+0.001")
    assert "| 0.031 | 0.062 | 0.0" in lines[0] and "| attention | 6 |" in lines[0]
    assert "| +0.000 [+0.000, +0.000] | 1.000 | 1.000 | 0.500 | 0.000 | - | 6 |" in text
    assert "Intervals are unreliable: n=6, fewer than 50 cases." in text
    assert "### Ranks" not in text
    with (tmp_path / "out" / "compare.csv").open() as file:
        (dice, _) = csv.DictReader(file)
    assert float(dice["mean_difference"]) == pytest.approx(0.075)
    assert (dice["first"], dice["second"], dice["better"]) == (
        "unet",
        "attention",
        "attention",
    )
    read = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert read["cases"] == [f"c{i}" for i in range(6)]
    assert read["comparisons"][0]["p"] == pytest.approx(1 / 32)
    cases = (tmp_path / "out" / "compare_cases.csv").read_text().splitlines()
    assert cases[:2] == ["task,case,algorithm,value", "pancreas dice,c0,unet,0.5"]


def test_three_networks_are_ranked_and_folders_of_one_name_are_seeds(
    runs, tmp_path, capsys
):
    again = write(tmp_path / "again", [0.6] * 6)
    other = write(tmp_path / "nnunet", [0.3] * 6)
    run(f"unet={runs[0]}", f"unet={again}", runs[1], other, "--metrics=dice")
    printed = capsys.readouterr().out
    assert "## unet and attention and nnunet on 6 cases" in printed
    assert "| Pancreas DSC | nnunet | 3 [3, 3] | 6 |" in printed
    # Seeds of 0.5 and 0.6: deviation 0.0707; cases do not differ.
    assert "| 0.000 | 0.071 | 0.000 | 0.500, 0.600 | 6 |" in printed
    assert "bootstrap over cases and seeds" in printed


def test_what_cannot_be_compared_is_refused_in_one_line(runs, tmp_path):
    unet, attention = runs
    test = Path("evaluation") / "test"
    assert "1 RUN given, 2 or more are needed" in reason(unet)
    for word in ("hf://bucket/run", "second=hf://bucket/run"):
        text = reason(unet, word)
        assert text.startswith("hf://bucket/run: must be a path of this machine")
    assert "is the same evaluation as" in reason(unet, unet / test)
    assert "is the same evaluation as" in reason(unet, f"second={unet}")
    assert "no such folder" in reason(unet, tmp_path / "none")
    assert "unknown flag --outputs, did you mean --output?" in reason(
        *runs, "--outputs=x"
    )
    later = write(tmp_path / "later", [0.5] * 6, first_case=4)
    text = reason(unet, later)
    assert "different cases (unet 6, later 6; 2 common)" in text
    assert "unet has c0, c1, c2 and 1 more" in text and "--common" in text
    far = write(tmp_path / "far", [0.5] * 6, first_case=6)
    for words in ((unet, far), (unet, far, "--common")):
        text = reason(*words)
        assert "no common case: unet has 6 (c0, c1, ...); far has 6" in text
    liver = write(tmp_path / "liver", [0.5] * 6, ("liver",))
    assert "no common organ: unet has pancreas; liver has liver" in reason(unet, liver)
    two = write(tmp_path / "two", [0.5] * 6, ("pancreas", "spleen"))
    assert "other organs: two has spleen, which not all have" in reason(unet, two)
    assert "--organs=spleen: unet has pancreas" in reason(
        unet, two, "--organs=spleen,pancreas"
    )
    on_scan = write(tmp_path / "scan", [0.5] * 6, grid="scan")
    assert "another --grid (prepared and scan)" in reason(unet, on_scan)
    areas = write(tmp_path / "areas", [0.5] * 6, definition="surface_distance")
    assert "another --definition (mesh and surface_distance)" in reason(unet, areas)
    fine, coarse = (
        write(tmp_path / name, [0.5] * 6, spacing_mm=[length] * 3)
        for name, length in (("fine", 2.0), ("coarse", 4.0))
    )
    assert "another spacing (2x2x2 and 4x4x4 mm, c0)" in reason(fine, coarse)
    truth = write(tmp_path / "truth", [0.5] * 6, truth_vox=90)
    text = reason(unet, truth)
    assert "against other label maps: the true pancreas of c0 has 100 and 90" in text
    assert "all are named a" in reason(f"a={unet}", f"a={attention}")
    assert "older version, without Surface Dice 1 mm" in reason(
        *runs, "--metrics=surface_dice_1mm"
    )
    assert "unet, a name given to another" in reason(unet, f"unet={attention}")


def test_common_cases_and_organs_are_compared_on_request(runs, tmp_path, capsys):
    other = write(tmp_path / "other", [0.9] * 6, ("spleen", "pancreas"), first_case=4)
    run(runs[0], other, "--common", "--metrics=dice")
    printed = capsys.readouterr().out
    assert "## unet and other on 2 cases" in printed
    assert "| other - unet | Pancreas DSC | +0.400 [+0.400, +0.400] |" in printed
    assert "Spleen" not in printed
    two = write(tmp_path / "two", [0.9] * 6, ("spleen", "pancreas"))
    run(runs[0], two, "--organs=pancreas", "--metrics=dice", "--interval=bca")
    printed = capsys.readouterr().out
    assert "on 6 cases" in printed and "BCa bootstrap over cases" in printed


def test_a_mistake_leaves_an_earlier_comparison_as_it_was(runs, tmp_path):
    output = tmp_path / "out"
    run(*runs, f"--output={output}")
    before = {path: path.read_bytes() for path in output.iterdir()}
    later = write(tmp_path / "later", [0.5] * 6, first_case=4)
    reason(runs[0], later, f"--output={output}")
    assert {path: path.read_bytes() for path in output.iterdir()} == before
