"""`launch.evaluate`: its scores are those of NumPy on the network's predictions."""

import copy
import dataclasses
import json
import shutil
from dataclasses import replace

import jax
import nibabel as nib
import numpy as np
import pytest
from ml_collections import ConfigDict

from attunet_jax import volume as volumes
from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.cases import Scoring, evaluate_cases
from attunet_jax.evaluate.report import evaluate_into_folder
from attunet_jax.evaluate.scoring import scored_apart
from attunet_jax.predict.predictor import Predictor, load_predictor
from attunet_jax.train.setup import setup
from attunet_jax.train.trained import load_trained
from data_prep.original import OriginalCases
from launch import evaluate as launch_evaluate
from launch import evaluate as program

ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3}


@pytest.fixture(scope="module")
def evaluated(run_program, finish, trained, prepared, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    words = (
        f"--workdir={trained[0]}",
        f"--data={prepared}",
        f"--output={output}",
        "--part=all",
        "--pictures=1",
        "--label_maps",
    )
    status, printed, errors = finish(run_program("launch.evaluate", *words))
    assert status == 0, errors
    return output, words, printed


def rows_of(output):
    return [json.loads(x) for x in (output / "cases.jsonl").read_text().splitlines()]


def test_overlap_of_each_case_and_organ_equals_numpy(evaluated, trained, prepared):
    rows = rows_of(evaluated[0])
    dataset, predictor = open_dataset(prepared), load_predictor(trained[0], {})
    assert [r["case_id"] for r in rows] == [i for i in dataset.case_ids for _ in ORGANS]
    for row in rows:
        case = dataset.case(row["case_id"])
        prediction = predictor.probabilities(case.image_hu).argmax(0)
        truth = case.label == ORGANS[row["organ"]]
        found = prediction == ORGANS[row["organ"]]
        both = (truth & found).sum()
        assert row["dice"] == pytest.approx(
            2 * both / (truth.sum() + found.sum()), abs=1e-12
        )
        assert row["recall"] == pytest.approx(both / truth.sum(), abs=1e-12)
        assert row["truth_ml"] == pytest.approx(truth.sum() * 64 / 1000)
        assert row["step"] == predictor.step and row["seconds"] > 0


@pytest.mark.parametrize(
    "spatial, windows",
    [(2, {}), (4, {"whole_volume_limit_vox": 0, "window_shape": (8, 16, 16)})],
    ids=["whole", "windows"],
)
def test_a_case_whose_depth_devices_share_has_the_probabilities_of_one(
    trained, prepared, spatial, windows
):
    one = load_predictor(trained[0], windows)
    split = load_predictor(trained[0], windows | {"spatial": spatial})
    image = open_dataset(prepared).case("ball_3").image_hu
    expected = one.probabilities(image)
    assert expected.shape[1:] == image.shape
    np.testing.assert_allclose(split.probabilities(image), expected, atol=1e-5)
    weights = split.variables["params"]["encoder_1"]["conv_1"]["kernel"]
    assert len(weights.sharding.device_set) == spatial
    assert split.identity == one.identity


def test_a_centre_crop_alone_is_scored_where_asked(trained, prepared, tmp_path):
    """16x16x16 voxels about the middle, normalised like the whole scan."""
    predictor = load_predictor(trained[0], {"region": "centre_crop"})
    dataset = open_dataset(prepared)
    seen = []
    rows = evaluate_cases(
        predictor,
        dataset,
        ["ball_3"],
        tmp_path / "cases.jsonl",
        on_case=lambda case, prediction, *_: seen.append((case, prediction)),
    )
    whole = dataset.case("ball_3")
    assert all(n > 16 for n in whole.label.shape)
    start = [(n - 16) // 2 for n in whole.label.shape]
    cut = tuple(slice(a, a + 16) for a in start)
    wide = predictor.probabilities(whole.image_hu[cut], whole.image_hu).argmax(0)
    (case, prediction) = seen[0]
    np.testing.assert_array_equal(prediction, wide)
    np.testing.assert_array_equal(case.label, whole.label[cut])
    corner = whole.affine @ [*start, 1]
    np.testing.assert_allclose(case.affine @ [0, 0, 0, 1], corner, atol=1e-9)
    for row in rows:
        truth = whole.label[cut] == ORGANS[row["organ"]]
        found = wide == ORGANS[row["organ"]]
        total = truth.sum() + found.sum()
        expected = 2 * (truth & found).sum() / total if total else None
        assert row["dice"] == (expected and pytest.approx(expected, abs=1e-12))


def test_voxels_without_a_truth_are_not_scored(
    trained, prepared, tmp_path, monkeypatch
):
    """As if the scan ended where its label map does."""
    predictor = load_predictor(trained[0])
    dataset = open_dataset(prepared)
    case = dataset.case("ball_3")
    label = case.label.copy()
    half = label.shape[2] // 2
    label[:, :, half:] = 255
    partly = replace(dataset, manifest=dataset.manifest | {"ignore_value": 255})
    monkeypatch.setattr(Dataset, "case", lambda *_: replace(case, label=label))
    rows = evaluate_cases(
        predictor, partly, ["ball_3"], tmp_path / "c.jsonl", on_case=lambda *_: None
    )
    found = predictor.probabilities(case.image_hu).argmax(0)[:, :, :half]
    for row in rows:
        truth = label[:, :, :half] == ORGANS[row["organ"]]
        organ = found == ORGANS[row["organ"]]
        total = truth.sum() + organ.sum()
        expected = 2 * (truth & organ).sum() / total if total else None
        assert row["dice"] == (expected and pytest.approx(expected, abs=1e-12))
        assert row["truth_vox"] == truth.sum()


def test_more_parts_than_devices_or_slices_of_a_window_are_refused(trained):
    with pytest.raises(BadArguments, match="predict.spatial=12: .* has 8 devices"):
        load_predictor(trained[0], {"spatial": 12})
    shape = {"whole_volume_limit_vox": 0, "window_shape": (16, 16, 16)}
    with pytest.raises(
        BadArguments, match="spatial=3 its depth must be divisible by 6"
    ):
        load_predictor(trained[0], shape | {"spatial": 3})


def test_the_summary_holds_mean_and_population_deviation(evaluated):
    output, _, printed = evaluated
    summary = json.loads((output / "summary.json").read_text())
    for organ in ORGANS:
        dice = [r["dice"] for r in rows_of(output) if r["organ"] == organ]
        assert summary[organ]["dice"]["mean"] == pytest.approx(np.mean(dice))
        assert summary[organ]["dice"]["std"] == pytest.approx(np.std(dice))
        told = f"{np.mean(dice):.3f} ± {np.std(dice):.3f}"
        assert any(x.startswith(organ) and told in x for x in printed.splitlines())
        assert told in (output / "summary.md").read_text()
    assert str(output / "summary.md") in printed


def test_pictures_and_label_maps_are_written_beside_the_scores(evaluated, prepared):
    output, _, _ = evaluated
    ids = open_dataset(prepared).case_ids
    assert [p.stem for p in output.glob("*.png")] == [ids[0]]
    maps = sorted(p.name for p in (output / "label_maps").iterdir())
    assert maps == [f"{case_id}.nii.gz" for case_id in ids] + ["labels.json"]


def test_label_maps_have_the_header_of_their_scans(evaluated, scan_folder):
    for path in sorted((evaluated[0] / "label_maps").glob("*.nii.gz")):
        scan, made = (
            nib.Nifti1Image.from_filename(p).header
            for p in (scan_folder / "images" / path.name, path)
        )
        assert (scan["sform_code"], scan["qform_code"], scan["xyzt_units"]) == (2, 0, 0)
        for name in ("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x"):
            np.testing.assert_array_equal(made[name], scan[name], name)


def test_an_interrupted_evaluation_predicts_only_what_is_missing(
    run_program, finish, evaluated
):
    output, words, _ = evaluated
    whole = rows_of(output)
    # As a kill leaves it: six rows and half of the seventh, not under the final name.
    lines = (output / "cases.jsonl").read_text().splitlines(keepends=True)
    (output / ".cases.jsonl.new").write_text("".join(lines[:6]) + lines[6][:40])
    (output / "cases.jsonl").unlink()
    status, _, errors = finish(run_program("launch.evaluate", *words))
    assert status == 0, errors
    again = rows_of(output)
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in again]
    assert strip == [{k: v for k, v in r.items() if k != "seconds"} for r in whole]
    # Seconds tell whether a case was predicted again.
    assert [r["seconds"] for r in again[:6]] == [r["seconds"] for r in whole[:6]]
    assert again[6]["seconds"] != whole[6]["seconds"]


def scores_and_files(predictor, prepared, folder, pictures=0, label_maps=False):
    """Evaluates two cases; returns rows without seconds, and names of other files."""
    dataset = open_dataset(prepared)
    rows, text = evaluate_into_folder(
        predictor,
        dataset,
        dataset.case_ids[:2],
        folder,
        pictures=pictures,
        label_maps=label_maps,
    )
    files = [p for p in folder.rglob("*") if p.suffix in (".png", ".gz")]
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return rows, sorted(p.name for p in files), text


def test_pictures_and_label_maps_that_are_asked_for_later_are_written(
    trained, prepared, tmp_path
):
    predictor = load_predictor(trained[0])
    first, files, _ = scores_and_files(predictor, prepared, tmp_path)
    assert files == []
    rows, files, _ = scores_and_files(predictor, prepared, tmp_path, pictures=1)
    assert rows == first and files == ["ball_0.png"]
    drawn = (tmp_path / "ball_0.png").stat().st_mtime_ns
    both = {"pictures": 2, "label_maps": True}
    rows, files, _ = scores_and_files(predictor, prepared, tmp_path, **both)
    expected = ["ball_0.nii.gz", "ball_0.png", "ball_1.nii.gz", "ball_1.png"]
    assert rows == first and files == expected
    # Nothing is missing now, so nothing is predicted.
    written = (tmp_path / "ball_0.png").stat().st_mtime_ns
    assert written > drawn
    scores_and_files(predictor, prepared, tmp_path, **both)
    assert (tmp_path / "ball_0.png").stat().st_mtime_ns == written

    # Pictures of other settings than the scores' do not stay beside them.
    other = load_predictor(trained[0], {"average_flips": True})
    rows, files, _ = scores_and_files(other, prepared, tmp_path)
    assert files == [] and rows != first


def test_organs_that_took_no_part_in_training_are_nowhere(trained, prepared, tmp_path):
    """As after fine-tuning on the pancreas: the source's other outputs stay."""
    model = load_trained(trained[0], {})
    rows, _, _ = scores_and_files(Predictor(model), prepared, tmp_path)
    assert {row["organ"] for row in rows} == set(ORGANS)
    model.run["config"]["classes"] = ["background", "pancreas"]
    tuned = Predictor(model)
    assert tuned.labels.values == {"pancreas": 2}
    # Into the folder that holds rows of all three, as an earlier version wrote them.
    rows, _, text = scores_and_files(tuned, prepared, tmp_path, 1, label_maps=True)
    assert [row["organ"] for row in rows] == ["pancreas", "pancreas"]
    assert {row["organ"] for row in rows_of(tmp_path)} == {"pancreas"}
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {"pancreas"}
    assert "spleen" not in text and "kidney" not in text
    names = json.loads((tmp_path / "label_maps" / "labels.json").read_text())
    assert names == {"0": "background", "2": "pancreas"}

    # The run of all organs begins anew in this folder, its label maps' values too.
    scores_and_files(load_predictor(trained[0]), prepared, tmp_path, 0, True)
    names = json.loads((tmp_path / "label_maps" / "labels.json").read_text())
    assert names == dict(zip("0123", ("background", *ORGANS), strict=True))


def test_bad_input_is_one_line(refused, refused_here, trained, prepared, tmp_path):
    words = {
        "--workdir": str(trained[0]),
        "--data": str(prepared),
        "--output": str(tmp_path),
    }
    for change, message, status in (
        ({"--part": "exam"}, "--part=exam is none of: train, validation, test, all", 2),
        ({"--pictures": "-1"}, "--pictures=-1 must be 0 or more", 2),
        ({"--split": "50_50"}, "--split=50_50: ", 2),
        ({"--data": "nowhere"}, "nowhere: no such folder of prepared data", 3),
        ({"--workdir": "nowhere"}, "nowhere: no checkpoints here", 3),
    ):
        given = [f"{k}={v}" for k, v in (words | change).items()]
        got, line = refused_here("launch.evaluate", *given)
        assert got == status and message in line
    got, line = refused("launch.evaluate", *given)  # the last as a program
    assert got == status and message in line


def evaluate(predictor, dataset, folder, *, pictures=0, replace=False):
    rows, _ = evaluate_into_folder(
        predictor,
        dataset,
        ("ball_1", "ball_2"),
        folder,
        pictures=pictures,
        label_maps=bool(pictures),
        replace=replace,
    )
    return rows


def seconds(rows):
    return [row["seconds"] for row in rows]


def test_rows_of_other_weights_settings_or_data_are_refused_or_made_again(
    trained, prepared, tmp_path, capsys
):
    """Of the same step, as two runs of one length have."""
    dataset, first = open_dataset(prepared), load_predictor(trained[0], {})
    before = evaluate(first, dataset, tmp_path, pictures=1)
    again = evaluate(load_predictor(trained[0]), dataset, tmp_path)
    assert seconds(again) == seconds(before)  # the same: nothing is predicted anew
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    other = load_predictor(trained[0], {})
    other.variables = jax.tree.map(lambda x: x * 1.1, other.variables)
    mirrored = load_predictor(trained[0], {"average_flips": True})
    moved = dataclasses.replace(dataset, manifest_sha256="another")
    for predictor, data, what in (
        (other, dataset, "weights"),
        (mirrored, dataset, "settings"),
        (first, moved, "data"),
    ):
        with pytest.raises(
            BadArguments, match=f"{tmp_path}: .* another {what}: .*--ou"
        ):
            evaluate(predictor, data, tmp_path)
        assert files == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    # A case of the other network cannot be left beside those of the first.
    made = evaluate(other, dataset, tmp_path, replace=True)
    assert "another weights: it is made again" in capsys.readouterr().out
    assert seconds(made) != seconds(before)
    assert not [*tmp_path.glob("*.png"), *tmp_path.glob("label_maps/*.gz")]
    assert {row["weights"] for row in rows_of(tmp_path)} == {other.identity["weights"]}


def test_scores_of_an_earlier_version_are_made_again_and_its_label_maps_stay(
    trained, prepared, tmp_path, capsys
):
    dataset, predictor = open_dataset(prepared), load_predictor(trained[0], {})
    rows = evaluate(predictor, dataset, tmp_path, pictures=1)
    new = ("surface_dice_1mm", "volume_error_ml", "spacing_mm", "grid", "definition")
    for row in rows:
        assert row["grid"] == "prepared" and row["spacing_mm"] == [4, 4, 4]
    old = [{k: v for k, v in row.items() if k not in new} for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in old)
    (tmp_path / "cases.jsonl").write_text(lines)
    maps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("label_maps/*.gz")}
    with pytest.raises(BadArguments, match="scores of 1 cases that are not asked for"):
        evaluate_into_folder(
            predictor, dataset, ("ball_1",), tmp_path, pictures=0, label_maps=False
        )
    again = evaluate(predictor, dataset, tmp_path)
    said = capsys.readouterr().out
    assert "earlier version, without volume_error_ml, surface_dice_1mm: they" in said
    assert [row.keys() for row in again] == [row.keys() for row in rows]
    assert maps == {p: p.stat().st_mtime_ns for p in tmp_path.glob("label_maps/*.gz")}
    assert "prepared data" in (tmp_path / "summary.md").read_text()


def test_scores_on_the_scans_own_grid_are_those_of_their_files(
    trained, prepared, scan_folder, tmp_path
):
    """Label maps as launch.predict makes them, against those that were prepared."""
    dataset, predictor = open_dataset(prepared), load_predictor(trained[0], {})
    original = OriginalCases(scan_folder, dataset, ["ball_1"])
    scoring = Scoring("surface_distance", original)
    rows, text = evaluate_into_folder(
        predictor,
        dataset,
        ("ball_1",),
        tmp_path,
        pictures=1,
        label_maps=True,
        scoring=scoring,
    )
    made = tmp_path / "label_maps" / "ball_1.nii.gz"
    scan = volumes.read_scan(scan_folder / "images" / "ball_1.nii.gz")
    np.testing.assert_array_equal(
        volumes.read_labels(made).voxels, predictor.label_map(scan)
    )
    truth, found = (
        np.asarray(nib.Nifti1Image.from_filename(p).dataobj)
        for p in (scan_folder / "labels" / made.name, made)
    )
    for row in rows:
        one, other = (labels == ORGANS[row["organ"]] for labels in (truth, found))
        assert (row["truth_vox"], row["prediction_vox"]) == (one.sum(), other.sum())
        expected = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert row["dice"] == pytest.approx(expected, abs=1e-12)
        assert row["spacing_mm"] == pytest.approx([2.5, 2, 2])
        assert (row["grid"], row["definition"]) == ("scan", "surface_distance")
    assert "own grid" in text and (tmp_path / "ball_1.png").exists()
    # The prepared truth was resampled: it has other volumes.
    before = evaluate(predictor, dataset, tmp_path / "prepared")
    assert before[0]["truth_ml"] != rows[0]["truth_ml"]
    assert "another --grid" in (scored_apart(before, rows) or "")
    # Beside these scores no others.
    with pytest.raises(BadArguments, match="another grid, definition"):
        evaluate(predictor, dataset, tmp_path)


def test_another_truth_than_the_one_that_was_prepared_is_refused(
    trained, prepared, scan_folder, tmp_path
):
    dataset = open_dataset(prepared)
    shutil.copytree(scan_folder, tmp_path / "scans")
    (tmp_path / "scans" / "labels" / "ball_2.nii.gz").unlink()
    shutil.copy(
        scan_folder / "labels" / "ball_3.nii.gz",
        tmp_path / "scans" / "labels" / "ball_1.nii.gz",
    )
    cases = OriginalCases(tmp_path / "scans", dataset, ["ball_1"])
    with pytest.raises(BadData, match="ball_1.nii.gz: is another label map than"):
        cases("ball_1")
    output = tmp_path / "evaluation" / "on_scan_grid"
    predictor = load_predictor(trained[0], {})
    for there in (False, True):
        if there:
            output.mkdir(parents=True)
        with pytest.raises(BadData, match="is another label map than"):
            evaluate_into_folder(
                predictor,
                dataset,
                ("ball_1",),
                output,
                pictures=0,
                label_maps=True,
                scoring=Scoring(original=cases),
            )
        if there:  # a folder of the user's stays, without a hidden file
            assert not [p for p in output.rglob("*") if p.name.startswith(".")]
        else:
            assert not output.parent.exists()
    with pytest.raises(BadArguments, match=r"--truth=\S+: has no case ball_x; name"):
        OriginalCases(scan_folder, dataset, ["ball_x"])
    words = [f"--workdir={trained[0]}", f"--data={prepared}"]
    for more, message in (
        (["--grid=scan"], "--grid=scan needs --truth=DIR"),
        ([f"--truth={scan_folder}"], "is for --grid=scan"),
    ):
        with pytest.raises(BadArguments, match=message):
            program.main(program.FLAGS.parse([*words, *more]))


def test_data_of_another_spacing_are_refused_before_anything_is_written(
    trained, prepared, tmp_path, capsys
):
    dataset, predictor = open_dataset(prepared), load_predictor(trained[0], {})
    wide = replace(dataset, manifest=dataset.manifest | {"spacing_mm": [3, 3, 3]})
    with pytest.raises(BadArguments, match=r"spacing of \[3, 3, 3\] mm.*--spacing_mm"):
        evaluate(predictor, wide, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
    assert capsys.readouterr().err == ""  # no bar has begun


def test_an_interrupted_evaluation_leaves_no_summary_of_before(
    trained, prepared, tmp_path, monkeypatch
):
    dataset = open_dataset(prepared)
    evaluate(load_predictor(trained[0], {}), dataset, tmp_path)
    assert (tmp_path / "summary.md").exists()
    other = load_predictor(trained[0], {"average_flips": True})
    whole, stops = other.probabilities, iter([False, True, True])

    def stopped(*arguments):
        if next(stops):
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(other, "probabilities", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(other, dataset, tmp_path, replace=True)
    assert [p.name for p in tmp_path.iterdir()] == [".cases.jsonl.new"]
    # Stopped once more before its next case, it does not lose the one that is there.
    with pytest.raises(KeyboardInterrupt):
        evaluate(other, dataset, tmp_path, replace=True)
    monkeypatch.setattr(other, "probabilities", whole)
    rows = evaluate(other, dataset, tmp_path)
    assert next(stops, None) is None
    assert {r["case_id"] for r in rows} == {"ball_1", "ball_2"}
    assert {r["predict"] for r in rows_of(tmp_path)} == {other.identity["predict"]}


def test_what_takes_no_part_in_a_prediction_does_not_change_its_identity(trained):
    predictor = load_predictor(trained[0], {})
    config = predictor.run["config"]
    for name, same in (
        ("optimizer.learning_rate", True),
        ("train.steps", True),
        ("data.threads", True),
        ("model.remat", True),
        ("model.align_corners", False),
        ("data.crop_shape", False),
        ("predict.window_sigma", False),
        ("something.new", False),
    ):
        other = load_predictor(trained[0], {})
        other.run["config"] = copy.deepcopy(config)
        group, field = name.split(".")
        other.run["config"].setdefault(group, {})[field] = "changed"
        assert (other.identity == predictor.identity) is same, name


def test_scores_of_another_split_are_neither_mixed_in_nor_dropped(
    trained, prepared, tmp_path
):
    dataset, predictor = open_dataset(prepared), load_predictor(trained[0])
    evaluate(predictor, dataset, tmp_path)
    before = (tmp_path / "cases.jsonl").read_bytes()
    for may_replace in (False, True):
        with pytest.raises(BadArguments, match="2 cases that are not asked for"):
            evaluate_into_folder(
                predictor,
                dataset,
                ("ball_3",),
                tmp_path,
                pictures=0,
                label_maps=False,
                replace=may_replace,
            )
    assert (tmp_path / "cases.jsonl").read_bytes() == before


def test_a_split_that_was_drawn_anew_since_training_is_noticed(
    trained, prepared, tmp_path
):
    shutil.copytree(prepared, tmp_path / "data")
    document = json.loads((tmp_path / "data" / "splits.json").read_text())
    parts = document["splits"]["80_20"]
    parts["test"][0], parts["train"][0] = parts["train"][0], parts["test"][0]
    (tmp_path / "data" / "splits.json").write_text(json.dumps(document))
    words = [f"--workdir={trained[0]}", f"--data={tmp_path / 'data'}"]
    with pytest.raises(BadArguments, match="80_20 was drawn anew since"):
        launch_evaluate.main(launch_evaluate.FLAGS.parse(words))
    run = load_predictor(trained[0]).run
    data = run["config"]["data"] | {"directory": str(tmp_path / "data")}
    dataset = open_dataset(tmp_path / "data")
    with pytest.raises(BadArguments, match="80_20 was drawn anew since"):
        setup(ConfigDict(run["config"] | {"data": data}), trained[0])
    # Of other data, or of a run from before this was stored, nothing is known.
    for other in ({"manifest_sha256": "x"}, {"split_sha256": None}):
        assert dataset.redrawn_since({**run, **other}) is None
