"""What lies outside the body decides nothing: padding, metal, tables, field of view."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.intensity import CtNormalisation
from attunet_jax.predict.predictor import load_predictor
from attunet_jax.volume import Volume, read_labels, read_scan


def spoilt(scan: Volume) -> dict[str, np.ndarray]:
    """The same anatomy `[D, H, W]` with other values where no organ is.

    "wider" has 20 voxels of air more on each side in plane.
    """
    hu = scan.voxels.astype(np.int16)
    _, height, width = hu.shape
    h, w = np.ogrid[:height, :width]
    middle_h, middle_w = (height - 1) / 2, (width - 1) / 2
    reach = ((h - middle_h) / (height / 2)) ** 2 + ((w - middle_w) / (width / 2)) ** 2
    outside = np.broadcast_to(reach > 1, hu.shape)
    found = {}
    for value in (-2000, -3024):
        found[f"padded by {value}"] = np.where(outside, value, hu)
    for value in (8000, 30000):
        found[f"metal of {value}"] = metal = hu.copy()
        row, column = round(middle_h), round(middle_w)
        metal[:, row - 2 : row + 2, column - 2 : column + 2] = value
    found["another table"] = table = hu.copy()
    below = table[:, -2:]
    below[below < -500] = 100
    found["wider"] = np.pad(
        hu, ((0, 0), (20, 20), (20, 20)), constant_values=int(hu.min())
    )
    return found


def inner(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Those of `labels` that lie on the scan that was not padded."""
    (_, height, width), (_, rows, columns) = like.shape, labels.shape
    top, left = (rows - height) // 2, (columns - width) // 2
    return labels[:, top : top + height, left : left + width]


@pytest.mark.parametrize("ball", [0, 3])
def test_a_few_voxels_far_away_change_no_label_of_the_organs(
    trained, scan_folder, ball
):
    predictor = load_predictor(trained[0])
    scan = read_scan(scan_folder / "images" / f"ball_{ball}.nii.gz")
    organs = read_labels(scan_folder / "labels" / f"ball_{ball}.nii.gz").voxels > 0
    expected = predictor(scan)
    assert 0 < (expected > 0).sum() < expected.size
    far = np.ones_like(organs)
    for value in (-3024, 30000):
        changed = scan.voxels.copy()
        changed[:2, :3, :3] = value
        far[:8, :12, :12] = False  # what this tiny network sees of it
        labels = predictor(changed, spacing_mm=scan.spacing_mm)
        np.testing.assert_array_equal(labels[far & organs], expected[far & organs])


def test_the_run_stores_the_numbers_of_its_training_cases(trained, prepared):
    run = json.loads((trained[0] / "config.json").read_text())
    splits = json.loads((prepared / "splits.json").read_text())["splits"]
    dataset = open_dataset(prepared)
    cases = map(dataset.case, splits["80_20"]["train"])
    hu = np.concatenate([case.image_hu[case.label > 0] for case in cases])
    low, high = np.rint(np.percentile(hu, [0.5, 99.5]))
    found = run["normalisation"]
    assert (found["low_hu"], found["high_hu"]) == (low, high)
    assert found["mean_hu"] == pytest.approx(hu.clip(low, high).mean())
    assert found["std_hu"] == pytest.approx(hu.clip(low, high).std())
    assert run["hu_range"] == [-1024, 3071]
    assert load_predictor(trained[0]).normalisation == CtNormalisation(**found)


def test_a_scan_in_another_unit_is_said_in_one_line(
    run_program, finish, trained, scan_folder, tmp_path
):
    scans = tmp_path / "scans"
    scans.mkdir()
    usual = scan_folder / "images" / "ball_0.nii.gz"
    shutil.copy(usual, scans / "usual.nii.gz")
    image = nib.Nifti1Image.from_filename(usual)
    shifted = np.asarray(image.dataobj) + np.int16(1024)
    nib.Nifti1Image(shifted, image.affine).to_filename(scans / "shifted.nii.gz")
    status, _, errors = finish(
        run_program(
            "launch.predict",
            f"--workdir={trained[0]}",
            f"--input={scans}",
            f"--output={tmp_path / 'out'}",
        )
    )
    assert status == 0
    notes = [line for line in errors.splitlines() if "values of training" in line]
    assert len(notes) == 1 and "shifted.nii.gz" in notes[0]


def mean_dice(truth: np.ndarray, labels: np.ndarray) -> float:
    scores = []
    for value in (1, 2, 3):
        a, b = truth == value, labels == value
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(scores))


@pytest.mark.cluster
def test_on_phantoms_the_dice_does_not_depend_on_what_is_outside(
    run_program, finish, tmp_path
):
    """The demo's network after minutes of training; tables of the values with -s."""
    scans, data, workdir = (tmp_path / name for name in ("scans", "data", "run"))
    for module, words in (
        ("data_prep.phantom", (f"--output={scans}", "--cases=24", "--seed=1")),
        (
            "data_prep.prepare",
            (
                "--source=nifti",
                f"--input={scans}",
                f"--output={data}",
                "--labels=spleen=1,pancreas=2,kidney=3",
                "--spacing_mm=4",
            ),
        ),
        (
            "launch.train",
            ("--config=demo", f"--data={data}", f"--workdir={workdir}"),
        ),
    ):
        process = run_program(module, *words)
        _, errors = process.communicate(timeout=1800)
        assert process.returncode == 0, errors
    predictor = load_predictor(workdir)
    splits = json.loads((data / "splits.json").read_text())["splits"]
    falls: dict[str, list[float]] = {}
    for case_id in splits["80_20"]["test"][:4]:
        scan = read_scan(scans / "images" / f"{case_id}.nii.gz")
        truth = read_labels(scans / "labels" / f"{case_id}.nii.gz").voxels
        labels = predictor(scan)
        best = mean_dice(truth, labels)
        print(f"{case_id}: mean Dice {best:.3f}")
        assert best > 0.5
        for name, changed in spoilt(scan).items():
            got = inner(predictor(changed, spacing_mm=scan.spacing_mm), truth)
            differ = (got != labels).sum() / (labels > 0).sum()
            dice = mean_dice(truth, got)
            print(
                f"  {name}: mean Dice {dice:.3f}, {differ:.2%} of organ voxels differ"
            )
            if name.startswith("padded") or name == "another table":
                assert differ < 0.01, (case_id, name)
            falls.setdefault(name, []).append(best - dice)
    for name, each in falls.items():
        assert np.mean(each) <= 0.02, (name, each)
