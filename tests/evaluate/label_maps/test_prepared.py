"""Label maps of other programs on prepared cases: as the truth was prepared."""

import json

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.label_maps.prepared import score_against_dataset
from attunet_jax.evaluate.metrics import measure_case

# Of nnU-Net's training; other values than those of the prepared scans.
NNUNET = {"background": 0, "Kidney": 1, "spleen": 2, "liver": 4}
TABLE = np.array([0, 2, 4, 1], np.uint8)  # prepared scan's value -> theirs


@pytest.fixture
def theirs(scan_folder, tmp_path):
    """nnU-Net's output folder: the truth itself, but for a hole in one spleen."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for path in sorted((scan_folder / "labels").iterdir()):
        image = nib.Nifti1Image.from_filename(path)
        voxels = TABLE[np.asarray(image.dataobj)]
        if path.name == "ball_3.nii.gz":
            voxels[12:, :, :][voxels[12:, :, :] == 2] = 0
        nib.Nifti1Image(voxels, image.affine).to_filename(folder / path.name)
    description = {"labels": NNUNET, "channel_names": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(description))
    for name in ("plans.json", "predict_from_raw_data_args.json", "summary.json"):
        (folder / name).write_text("{}")
    return folder


def test_label_maps_of_nnunet_are_scored_as_the_truth_was_prepared(
    theirs, prepared, scan_folder, tmp_path
):
    from data_prep import prepare

    dataset = open_dataset(prepared)
    cases = ["ball_3", "ball_1"]
    rows = score_against_dataset(theirs, dataset, cases)
    assert [(r["case_id"], r["organ"]) for r in rows] == [
        (case, organ) for case in cases for organ in ("spleen", "kidney")
    ]
    assert {row["grid"] for row in rows} == {"prepared"}
    assert [row["dice"] for row in rows[1:]] == [1, 1, 1]
    assert rows[0]["spacing_mm"] == [4, 4, 4] and rows[0]["dice"] < 0.9

    # Preparing their label maps as if they were the truth gives the same voxels.
    scans = tmp_path / "scans"
    (scans / "labels").mkdir(parents=True)
    (scans / "images").symlink_to(scan_folder / "images")
    for path in theirs.glob("*.nii.gz"):
        (scans / "labels" / path.name).symlink_to(path)
    flags = ["--labels=kidney=1,spleen=2,liver=4", "--spacing_mm=4", "--workers=1"]
    again = tmp_path / "again"
    words = ["--source=nifti", f"--input={scans}", f"--output={again}", *flags]
    assert prepare.main(words) == 0
    case, other = dataset.case("ball_3"), open_dataset(again).case("ball_3")
    (expected,) = measure_case(
        (case.label == dataset.labels.values["spleen"]).astype(np.uint8),
        (other.label == 2).astype(np.uint8),
        case.spacing_mm,
        {"spleen": 1},
    )
    assert expected.items() <= rows[0].items()


def test_rows_are_made_once(theirs, prepared, tmp_path, monkeypatch):
    from attunet_jax.evaluate.label_maps import measure

    scored, real = [], measure.measure_case
    monkeypatch.setattr(
        measure, "measure_case", lambda *a, **k: scored.append(1) or real(*a, **k)
    )
    dataset, path = open_dataset(prepared), tmp_path / "rows" / "cases.jsonl"
    rows = score_against_dataset(theirs, dataset, ["ball_1", "ball_2"], path=path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    again = score_against_dataset(theirs, dataset, ["ball_1", "ball_2"], path=path)
    assert again == rows and len(scored) == 2
    (theirs / "ball_1.nii.gz").write_bytes((theirs / "ball_3.nii.gz").read_bytes())
    score_against_dataset(theirs, dataset, ["ball_1", "ball_2"], path=path)
    assert len(scored) == 3


def test_a_centre_crop_is_that_of_an_evaluation(theirs, prepared):
    dataset = open_dataset(prepared)
    crop = CropSpec.exact((8, 8, 8), "lowest")
    rows = score_against_dataset(theirs, dataset, ["ball_3"], window=crop)
    label = dataset.case("ball_3").label
    starts = [(n - 8) // 2 for n in label.shape]
    box = tuple(slice(start, start + 8) for start in starts)
    for row in rows:
        expected = int((label[box] == dataset.labels.values[row["organ"]]).sum())
        assert row["truth_vox"] == expected and row["scored_vox"] == 8**3


def test_folders_that_cannot_be_compared_are_refused_in_one_line(
    theirs, prepared, tmp_path
):
    dataset = open_dataset(prepared)

    def refused(error, case_ids=("ball_1",), **options):
        with pytest.raises(error) as caught:
            score_against_dataset(theirs, dataset, case_ids, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (theirs / "ball_2.nii.gz").unlink()
    text = refused(BadData, ["ball_1", "ball_2"])
    assert "1 of the 2 cases (ball_2)" in text
    image = nib.Nifti1Image.from_filename(theirs / "ball_1.nii.gz")
    cut = np.asarray(image.dataobj)[:, 2:]
    nib.Nifti1Image(cut, image.affine).to_filename(theirs / "ball_1.nii.gz")
    text = refused(BadData)
    assert "30 x 38 x 36 voxels" in text and "30 x 40 x 36" in text
    text = refused(BadArguments, labels="lung=1")
    assert "has none of the organs" in text and "lung" in text
    (theirs / "dataset.json").unlink()
    assert 'labels.json there, such as {"1": "spleen"' in refused(BadArguments)
