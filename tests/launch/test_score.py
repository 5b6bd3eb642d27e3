"""Anybody's label maps against the truth: pairs, names, grids, files and mistakes."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.errors import exit_status
from launch import score

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
    import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
AFFINE = np.diag([-2.0, -2.0, 2.5, 1.0])
NAMES = {"spleen": 1, "pancreas": 2, "kidney": 3}
NNUNET = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 2}


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)


def blocks(shift: int = 0) -> np.ndarray:
    """Three organs in file order [x, y, z], moved by `shift` voxels along x."""
    voxels = np.zeros((20, 16, 12), np.uint8)
    voxels[2 + shift : 8 + shift, 2:7, 2:8] = 1
    voxels[4 + shift : 12 + shift, 9:14, 3:9] = 2
    voxels[11 + shift : 14 + shift, 2:5, 1:4] = 3
    return voxels


@pytest.fixture
def folders(tmp_path):
    """Two cases with a truth and a prediction, one voxel off."""
    for i, name in enumerate(("a", "b")):
        save(tmp_path / "truth" / f"{name}.nii.gz", blocks(i))
        save(tmp_path / "prediction" / f"{name}.nii.gz", blocks(i + 1))
    return tmp_path


@pytest.fixture
def run(capfd):
    """The program as a command line runs it: (status, stdout, lines of stderr)."""

    def program(folder: Path, *words: object, truth="truth", prediction="prediction"):
        flags = [f"--truth={folder / truth}", f"--prediction={folder / prediction}"]
        flags += [f"--output={folder / 'out'}", "--report=false", *map(str, words)]
        capfd.readouterr()
        status = exit_status(lambda: score.main(score.FLAGS.parse(flags)))
        out, err = capfd.readouterr()
        # A bar is drawn where a busy machine takes a while.
        lines = [x for x in err.splitlines() if x.strip() and "case/s]" not in x]
        return status, out, lines

    return program


def rows_of(folder: Path) -> dict[tuple[str, str], dict]:
    lines = (folder / "out" / "cases.jsonl").read_text().splitlines()
    return {(r["case_id"], r["organ"]): r for r in map(json.loads, lines)}


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return 2 * int((truth & prediction).sum()) / int(truth.sum() + prediction.sum())


def test_two_folders_are_scored_as_an_evaluation_is(folders, run):
    status, out, errors = run(folders, "--labels=spleen=1,rest=2+3", "--report")
    assert (status, errors) == (0, [])
    rows = rows_of(folders)
    assert list(rows) == [(c, o) for c in "ab" for o in ("spleen", "rest")]
    for (case, organ), row in rows.items():
        values = [1] if organ == "spleen" else [2, 3]
        pair = [np.isin(blocks("ab".index(case) + i), values) for i in (0, 1)]
        assert row["dice"] == pytest.approx(dice(*pair), abs=1e-12)
        assert row["truth_ml"] == pytest.approx(int(pair[0].sum()) * 0.01)
        assert row["spacing_mm"] == [2.5, 2, 2] and row["grid"] == "scan"
        assert row["diagonal_mm"] == pytest.approx(math.hypot(30, 32, 40))
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["rest"]["dice"]["n"] == 2
    assert "spleen" in (folders / "out" / "report.html").read_text()
    assert str(folders / "out" / "summary.md") in out


def test_nnunets_summary_has_the_numbers_of_a_count_by_hand(folders, run):
    """Regions that overlap, voxels to ignore, and a label no case has, as nnU-Net."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "gone": 3, "ignore": 4}
    text = json.dumps({"labels": labels, **NNUNET})
    (folders / "prediction" / "dataset.json").write_text(text)
    for name in ("plans.json", "predict_from_raw_data_args.json", "summary.json"):
        (folders / "prediction" / name).write_text("{}")
    maps = {}
    for i, name in enumerate("ab"):
        for side, shift in (("truth", i), ("prediction", i + 1)):
            maps[side, name] = np.where(blocks(shift) == 3, 0, blocks(shift))
        maps["truth", name][5, 10:12, 4] = 4
        for side in ("truth", "prediction"):
            save(folders / side / f"{name}.nii.gz", maps[side, name])
    status, out, errors = run(folders)
    assert (status, errors) == (0, []) and "4 .json files" in out
    written = json.loads((folders / "out" / "nnunet_summary.json").read_text())

    expected = []
    for name in "ab":
        truth, prediction = maps["truth", name], maps["prediction", name]
        known, metrics = truth != 4, {}
        for key, values in (("(1, 2)", (1, 2)), ("2", (2,)), ("3", (3,))):
            ref, pred = np.isin(truth, values), np.isin(prediction, values)
            tp, fp = int((ref & pred & known).sum()), int((~ref & pred & known).sum())
            fn, tn = int((ref & ~pred & known).sum()), int((~ref & ~pred & known).sum())
            some = tp + fp + fn > 0
            metrics[key] = {
                "Dice": 2 * tp / (2 * tp + fp + fn) if some else np.nan,
                "IoU": tp / (tp + fp + fn) if some else np.nan,
                **{"TP": tp, "FP": fp, "FN": fn, "TN": tn},
                **{"n_pred": tp + fp, "n_ref": tp + fn},
            }
        expected.append(metrics)
    assert [case["metrics"] for case in written["metric_per_case"]] == [
        {key: pytest.approx(of_key, nan_ok=True) for key, of_key in metrics.items()}
        for metrics in expected
    ]
    paths = [case["prediction_file"] for case in written["metric_per_case"]]
    assert paths == [str(folders / "prediction" / f"{n}.nii.gz") for n in "ab"]
    for key in ("(1, 2)", "2", "3"):
        for number in ("Dice", "TP"):
            mean = np.mean([metrics[key][number] for metrics in expected])
            assert written["mean"][key][number] == pytest.approx(mean, nan_ok=True)
    means = [written["mean"][key]["FP"] for key in ("(1, 2)", "2", "3")]
    assert written["foreground_mean"]["FP"] == pytest.approx(np.mean(means))
    assert math.isnan(written["foreground_mean"]["Dice"])


def test_organs_of_other_values_are_matched_by_name(folders, run):
    names = {0: "background", 1: "Kidney", 2: "spleen", 3: "liver", 4: "pancreas"}
    (folders / "prediction" / "labels.json").write_text(json.dumps(names))
    (folders / "dataset.json").write_text(json.dumps({"labels": NAMES, **NNUNET}))
    table = np.array([0, 2, 4, 1], np.uint8)  # value here -> value there
    for i, name in enumerate("ab"):
        save(folders / "prediction" / f"{name}.nii.gz", table[blocks(i)])
    status, out, _ = run(folders)
    assert status == 0
    assert {o: r["dice"] for (_, o), r in rows_of(folders).items()} == dict.fromkeys(
        NAMES, 1
    )
    assert "spleen is value 1 in the truth and 2 in the prediction" in out
    assert "liver" in out  # not scored, and said
    # What a flag asks for and the other side does not have is no small matter.
    status, _, errors = run(folders, "--labels=stomach=1")
    assert status == 2 and "--prediction_labels=stomach=VALUE" in errors[0]


def test_without_names_each_value_is_a_label(folders, run):
    voxels = blocks()
    voxels[0, 0, 0] = 7
    save(folders / "prediction" / "a.nii.gz", voxels)
    assert run(folders)[0] == 0
    rows = rows_of(folders)
    assert [o for c, o in rows if c == "b"] == [f"label_{v}" for v in (1, 2, 3, 7)]
    assert rows["a", "label_7"]["dice"] == 0 and rows["b", "label_7"]["dice"] is None


def test_values_without_a_name_are_counted_named_and_background(folders, run):
    extra = blocks(1)
    extra[18, 1:3, 1] = 7
    save(folders / "truth" / "b.nii.gz", extra)
    status, out, errors = run(folders, "--labels=spleen=1,pancreas=2")
    assert (status, errors) == (0, [])
    (line,) = [x for x in out.splitlines() if "in the truth" in x]
    assert "3 (2 cases), 7 (1 case)" in line and "--labels=" in line
    (line,) = [x for x in out.splitlines() if "in the prediction" in x]
    assert "3 (2 cases)" in line and "7" not in line
    assert set(rows_of(folders)) == {(c, o) for c in "ab" for o in NAMES if o[0] != "k"}
    # What is kept of a case says it again; with a name for all there is nothing to say.
    assert "7 (1 case)" in run(folders, "--labels=spleen=1,pancreas=2")[1]
    out = run(folders, "--labels=spleen=1,pancreas=2,kidney=3,ignore=7")[1]
    assert "without a name" not in out


def test_a_report_that_cannot_be_written_is_an_error_after_all_scores(folders, run):
    words = ("--labels=spleen=1,pancreas=2,kidney=3", "--report=true")
    (folders / "out" / "report.html").mkdir(parents=True)
    status, out, errors = run(folders, *words)
    assert status == 3 and len(errors) == 1, errors
    assert errors[0].startswith("error: ") and "report.html" in errors[0]
    assert "launch.report" in errors[0] and "written to" in out
    assert len(rows_of(folders)) == 6
    # Beside another mistake both are said.
    (folders / "prediction" / "b.nii.gz").unlink()
    status, out, errors = run(folders, *words)
    assert status == 3 and len(errors) == 2, errors
    assert "report.html" in errors[0] and "without a prediction" in errors[1]


def test_pairs_are_found_below_folders_with_channels_and_in_other_formats(
    tmp_path, run
):
    save(tmp_path / "truth" / "site 1" / "x_0000.nii.gz", blocks())
    save(tmp_path / "truth" / "site 1" / "x_0001.nii.gz", blocks())
    save(tmp_path / "truth" / "site 2" / "x.nii", blocks().astype(np.float32))
    save(tmp_path / "prediction" / "site 1" / "x_0000.nii.gz", blocks())
    save(tmp_path / "prediction" / "site 2" / "x_0000.nii.gz", blocks())
    # The same voxels in another order of axes.
    turned = np.array([[0, -2.0, 0, 0], [0, 0, -2, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]])
    save(tmp_path / "prediction" / "site 1" / "x_0001.nii", blocks().T, AFFINE)
    (tmp_path / "prediction" / "site 1" / "x_0001.nii").unlink()
    save(
        tmp_path / "prediction" / "site 1" / "x_0001.nii.gz",
        np.ascontiguousarray(blocks().transpose(2, 0, 1)),
        turned,
    )
    status, _, errors = run(tmp_path)
    assert (status, errors) == (0, [])
    rows = rows_of(tmp_path)
    cases = ["site_1_x_0000", "site_1_x_0001", "site_2_x"]
    assert sorted({case for case, _ in rows}) == cases
    assert {row["dice"] for row in rows.values()} == {1}

    # Two files are a pair whatever they are called.
    save(tmp_path / "other.nii.gz", blocks())
    status, _, _ = run(
        tmp_path,
        f"--output={tmp_path / 'files'}",
        truth="truth/site 2/x.nii",
        prediction="other.nii.gz",
    )
    assert status == 0 and (tmp_path / "files" / "summary.json").is_file()


def test_folders_of_masks_are_label_maps(tmp_path, run):
    for case in ("s1", "s2"):
        inside = tmp_path / "truth" / case
        save(inside / "ct.nii.gz", np.full((20, 16, 12), -1000, np.int16))
        for organ, value in (("spleen", 1), ("pancreas", 2)):
            mask = (blocks() == value).astype(np.uint8)
            save(inside / "segmentations" / f"{organ}.nii.gz", mask)
            save(tmp_path / "prediction" / case / f"{organ}.nii.gz", mask)
    status, _, errors = run(tmp_path)
    assert (status, errors) == (0, [])
    assert {key: row["dice"] for key, row in rows_of(tmp_path).items()} == {
        (case, organ): 1 for case in ("s1", "s2") for organ in ("spleen", "pancreas")
    }
    (tmp_path / "prediction" / "s2" / "spleen.nii.gz").unlink()
    status, _, errors = run(tmp_path)
    assert status == 3 and "no mask of spleen" in errors[-1]
    assert {case for case, _ in rows_of(tmp_path)} == {"s1"}


def test_label_maps_of_slicer_and_metaimage_are_read(folders, run):
    """Cut to what is labelled, with the names of segments, as 3D Slicer saves them."""
    for name in "ab":
        (folders / "truth" / f"{name}.nii.gz").unlink()
        whole = sitk.ReadImage(str(folders / "prediction" / f"{name}.nii.gz"))
        cut = whole[1:18, 1:15, 1:10]
        for i, (segment, value) in enumerate(NAMES.items()):
            cut.SetMetaData(f"Segment{i}_Name", segment)
            cut.SetMetaData(f"Segment{i}_LabelValue", str(value))
        sitk.WriteImage(cut, str(folders / "truth" / f"{name}.seg.nrrd"))
        sitk.WriteImage(whole, str(folders / "prediction" / f"{name}.mha"))
        (folders / "prediction" / f"{name}.nii.gz").unlink()
    status, _, errors = run(folders)
    assert (status, errors) == (0, [])
    assert {key: row["dice"] for key, row in rows_of(folders).items()} == {
        (case, organ): 1 for case in "ab" for organ in NAMES
    }


def test_a_prediction_on_another_grid_is_refused_or_resampled(folders, run):
    fine = np.repeat(np.repeat(blocks(1), 2, 0), 2, 1)
    affine = AFFINE @ np.diag([0.5, 0.5, 1, 1])
    affine[:2, 3] = 0.5  # the first of four small voxels lies 0.5 mm before
    save(folders / "prediction" / "a.nii.gz", fine, affine)
    save(folders / "prediction" / "b.nii.gz", blocks(2)[:, :, 2:], cut := AFFINE.copy())
    status, _, errors = run(folders, "--labels=spleen=1,pancreas=2")
    assert status == 3 and len(errors) == 1
    for text in ("12 x 32 x 40", "2.5 x 1 x 1", "12 x 16 x 20", "2.5 x 2 x 2"):
        assert text in errors[0]
    assert "--resample" in errors[0] and not (folders / "out").exists()

    cut[2, 3] = 5  # two slices of the patient are not there
    save(folders / "prediction" / "b.nii.gz", blocks(2)[:, :, 2:], cut)
    status, out, _ = run(folders, "--labels=spleen=1,pancreas=2", "--resample")
    assert status == 0 and "2 predictions were put onto" in out
    truth, cut_off = blocks(1), blocks(2)
    cut_off[:, :, :2] = 0
    rows = rows_of(folders)
    assert rows["a", "spleen"]["dice"] == dice(blocks() == 1, blocks(1) == 1)
    assert rows["b", "spleen"]["dice"] == dice(truth == 1, cut_off == 1)
    assert rows["b", "spleen"]["resampled"] is True


def test_what_has_changed_is_scored_again_and_nothing_else(folders, run, monkeypatch):
    from attunet_jax.evaluate.label_maps import measure

    scored, real = [], measure.measure_case
    monkeypatch.setattr(
        measure,
        "measure_case",
        lambda *a, **k: scored.append(1) or real(*a, **k),
    )
    words = ("--labels=spleen=1,pancreas=2",)
    assert run(folders, *words)[0] == 0 and len(scored) == 2
    assert run(folders, *words)[0] == 0 and len(scored) == 2
    save(folders / "prediction" / "b.nii.gz", blocks(3))
    assert run(folders, *words)[0] == 0 and len(scored) == 3
    assert rows_of(folders)["b", "spleen"]["dice"] == dice(
        blocks(1) == 1, blocks(3) == 1
    )
    # Other values of an organ, or what a kill left of the rows.
    assert run(folders, "--labels=spleen=1,pancreas=3")[0] == 0 and len(scored) == 5
    whole = folders / "out" / "cases.jsonl"
    text = whole.read_text()
    whole.with_name(".cases.jsonl.new").write_text(text[: len(text) * 3 // 4])
    whole.unlink()
    assert run(folders, "--labels=spleen=1,pancreas=3")[0] == 0 and len(scored) == 6
    assert whole.read_text() == text and len(list((folders / "out").iterdir())) == 5


def test_several_processes_give_the_same_rows_as_one(folders, run):
    assert run(folders, "--labels=spleen=1")[0] == 0
    rows = rows_of(folders)
    shutil.rmtree(folders / "out")
    assert run(folders, "--labels=spleen=1", "--workers=2")[0] == 0
    assert rows_of(folders) == rows


def test_label_maps_of_one_folder_alone_are_named(folders, run):
    save(folders / "truth" / "c.nii.gz", blocks())
    save(folders / "prediction" / "d.nii.gz", blocks())
    status, _, errors = run(folders, "--labels=spleen=1")
    assert status == 3 and len(rows_of(folders)) == 2
    text = " ".join(errors)
    assert "1 without a prediction (c)" in text and "1 without a truth (d)" in text
    assert "--only_common" in errors[-1]
    status, out, errors = run(folders, "--labels=spleen=1", "--only_common")
    assert (status, errors) == (0, []) and "without a prediction (c)" in out


def test_a_case_that_cannot_be_read_is_named_and_the_others_are_scored(folders, run):
    broken = folders / "prediction" / "b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    status, _, errors = run(folders, "--labels=spleen=1")
    assert status == 3 and len(errors) == 1
    assert f"1 of 2 cases: {broken}: truncated" in errors[0]
    assert {case for case, _ in rows_of(folders)} == {"a"}


def test_mistakes_are_one_line_and_nothing_is_overwritten(folders, run):
    assert run(folders, "--labels=spleen=1")[0] == 0
    before = {p: p.read_bytes() for p in (folders / "out").iterdir()}
    half = blocks().astype(np.float32)
    half[3, 3, 3] = 0.5
    ct = np.random.default_rng(0).normal(100, 40, (20, 16, 12)).astype(np.int16)
    save(folders / "halves" / "a.nii.gz", half)
    save(folders / "scan" / "a.nii.gz", ct)
    save(folders / "unsigned" / "a.nii.gz", (ct - ct.min()).astype(np.uint16))
    save(folders / "named" / "z.nii.gz", blocks())
    save(folders / "deep" / "labelsTr" / "a.nii.gz", blocks())
    save(folders / "others" / "a.nii.gz", (blocks() > 0) * np.uint8(9))
    (folders / "empty").mkdir()
    two = ("--labels=spleen=1",)
    for status, words, prediction, text in (
        (2, two, "truth", "a label map agrees with itself"),
        (3, two, "halves", "label 0.5 is not a whole number"),
        (3, two, "scan", "is this the label map?"),
        (3, two, "unsigned", "a scan, not a label map"),
        (3, (), "unsigned", "a scan, not a label map"),
        (3, two, "named", "give the files equal names"),
        (3, two, "deep", f"--prediction={folders / 'deep' / 'labelsTr'}"),
        (3, two, "empty", "no label maps in it"),
        (3, two, "missing", "no such file or folder"),
        (2, (), "others", "no label in common"),
        (2, ("--labels=spleen",), "prediction", "--labels"),
        (3, ("--labels=liver=5",), "prediction", "no case has liver"),
        (2, (*two, "--workers=0"), "prediction", "--workers=0"),
        (2, (*two, "--pictures=2"), "prediction", "--images"),
        (2, (f"--output={folders / 'truth' / 'x'}",), "prediction", "lies within"),
    ):
        out = f"--output={folders / ('out' if prediction == 'prediction' else 'new')}"
        found, _, errors = run(folders, out, *words, prediction=prediction)
        assert found == status and len(errors) == 1, (prediction, errors)
        assert errors[0].startswith("error: ") and text in errors[0], errors
    assert not (folders / "new").exists()
    # The results of others are theirs.
    save(folders / "second" / "a.nii.gz", blocks())
    status, _, errors = run(folders, *two, "--only_common", prediction="second")
    assert status == 2 and "another prediction" in errors[0] and len(errors) == 1
    assert {p: p.read_bytes() for p in (folders / "out").iterdir()} == before
    (folders / "run").mkdir()
    begun = folders / "run" / ".cases.jsonl.new"
    begun.write_text('{"case_id": "a", "organ": "spleen", "step": 1}\n')
    status, _, errors = run(folders, *two, f"--output={folders / 'run'}")
    assert status == 2 and "launch.score did not make" in errors[0]
    assert len(begun.read_text().splitlines()) == 1


def test_pictures_are_drawn_on_the_scans(folders, run):
    save(folders / "images" / "a_0000.nii.gz", blocks().astype(np.int16) * 90 - 100)
    words = ("--labels=spleen=1", f"--images={folders / 'images'}")
    status, out, errors = run(folders, *words)
    assert status == 0 and not any(line.startswith("error") for line in errors)
    assert (folders / "out" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "no picture of b" in out


def test_default_output_lies_beside_the_prediction(tmp_path):
    (tmp_path / "fold_0").mkdir()
    assert score.default_output(tmp_path / "fold_0") == tmp_path / "fold_0_score"
    assert score.default_output(tmp_path / "x.nii.gz") == tmp_path / "x_score"


def test_scoring_loads_no_jax():
    code = "import sys, attunet_jax.evaluate.score; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
