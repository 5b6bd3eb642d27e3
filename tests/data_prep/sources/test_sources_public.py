"""Public data sets' folders, small: Decathlon, BTCV, AMOS, TotalSegmentator."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.errors import BadArguments, BadData
from data_prep.read import pair_files, read_pair
from data_prep.sources import SOURCES
from data_prep.sources.layout import ScanPair

DECATHLON = {
    "name": "Pancreas",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
    "numTraining": 2,
    "training": [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
        for n in ("pancreas_001", "pancreas_004")
    ],
    "test": ["./imagesTs/pancreas_002.nii.gz"],
}


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def scan_with(save_nifti, image: Path, label: Path, *values: int) -> None:
    """An image, and a label map with each value in a block of 8 voxels."""
    voxels = np.zeros((6, 6, 4 * len(values)), np.uint8)
    for number, value in enumerate(values):
        voxels[1:3, 1:3, 4 * number : 4 * number + 2] = value
    hu = np.random.default_rng(0).integers(-1000, 300, voxels.shape)
    save_nifti(image, hu.astype(np.int16))
    save_nifti(label, voxels)


def prepared(outcome_of, source: str, folder: Path, *words: str) -> dict:
    """The manifest of a run that left nothing out."""
    output = folder.with_name("prepared")
    outcome = outcome_of(
        f"--source={source}", f"--input={folder}", f"--output={output}", *words
    )
    assert outcome.status == 0, outcome.err
    return json.loads((output / "manifest.json").read_text()) | {"said": outcome.out}


def label_map(pair: ScanPair, organs: dict[str, tuple[int, ...]] | None) -> np.ndarray:
    """The values `[D, H, W]` that a pair has in its files."""
    assert organs is not None
    _, labels = read_pair(pair, organs)
    assert labels is not None
    return labels.voxels


@pytest.fixture
def decathlon(tmp_path, save_nifti):
    """Task07 as its tar leaves it; `write` changes its dataset.json."""
    folder = tmp_path / "Task07_Pancreas"
    for name in ("pancreas_001", "pancreas_004"):
        places = (folder / kind / f"{name}.nii.gz" for kind in ("imagesTr", "labelsTr"))
        scan_with(save_nifti, *places, 1, 2)
    touch(folder / "imagesTs", "pancreas_002.nii.gz", "._pancreas_002.nii.gz")
    touch(folder / "imagesTr", "._pancreas_001.nii.gz")
    touch(folder / "labelsTr", "._pancreas_001.nii.gz")
    touch(folder, "._dataset.json")

    def write(**changes):
        (folder / "dataset.json").write_text(json.dumps(DECATHLON | changes))
        return folder

    write()
    return write


def test_in_the_decathlon_a_tumour_is_part_of_the_pancreas(decathlon, prepare_here):
    manifest = prepared(prepare_here, "msd", decathlon())
    assert manifest["organs"] == {"pancreas": 1}
    found = [(case["case_id"], case["voxels"]) for case in manifest["cases"]]
    assert found == [(f"pancreas_00{n}", {"pancreas": 16}) for n in (1, 4)]
    assert "1 scans without labels are not prepared" in manifest["said"]
    assert f"launch.predict --input={decathlon() / 'imagesTs'}" in manifest["said"]


def test_in_the_decathlon_a_tumour_is_kept_apart_where_labels_say_so(
    decathlon, prepare_here
):
    words = "--labels=pancreas=1,tumour=2"
    manifest = prepared(prepare_here, "msd", decathlon(), words)
    assert manifest["organs"] == {"pancreas": 1, "tumour": 2}
    assert manifest["cases"][0]["voxels"] == {"pancreas": 8, "tumour": 8}


def test_other_tasks_of_the_decathlon_have_their_own_organs(decathlon):
    labels = {"0": "background", "1": "liver", "2": "cancer", "3": "Hepatic Vessel"}
    organs = SOURCES["msd"](decathlon(labels=labels)).organs
    assert organs == {"liver": (1,), "cancer": (2,), "Hepatic_Vessel": (3,)}


def test_a_case_that_dataset_json_lists_and_is_not_there_is_left_out(
    decathlon, prepare_here, tmp_path
):
    folder = decathlon()
    (folder / "labelsTr" / "pancreas_004.nii.gz").unlink()
    outcome = prepare_here(
        "--source=msd", f"--input={folder}", f"--output={tmp_path / 'prepared'}"
    )
    assert outcome.status == 3
    missing = folder / "labelsTr" / "pancreas_004.nii.gz"
    assert f"pancreas_004: {missing}: no such file" in outcome.err


def test_paths_in_dataset_json_do_not_leave_the_folder(decathlon):
    outside = [{"image": "../../etc/pancreas_009.nii.gz", "label": "/etc/passwd"}]
    folder = decathlon(training=outside)
    pair = SOURCES["msd"](folder).pairs[-1]
    assert pair.image == folder / "imagesTr" / "pancreas_009.nii.gz"
    assert pair.label == folder / "labelsTr" / "pancreas_009.nii.gz"


def test_a_description_that_is_none_is_refused(decathlon):
    for changes, kind, words in [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, BadArguments, "FLAIR, T1w"),
        ({"modality": {"0": "MRI"}}, BadArguments, "the images are MRI"),
        ({"labels": ["background"]}, BadData, "not names and values"),
        ({"labels": {"one": "spleen"}}, BadData, "'one' has the value"),
        ({"training": [{"label": "x"}]}, BadData, "which is no scan"),
    ]:
        folder = decathlon(**changes)
        with pytest.raises(kind, match=words) as caught:
            SOURCES["msd"](folder)
        assert str(caught.value).startswith(str(folder / "dataset.json"))


@pytest.mark.parametrize("root", ["", "RawData", "Abdomen/RawData"])
def test_btcv_has_thirteen_organs_of_which_ours_are_read(
    tmp_path, save_nifti, prepare_here, root
):
    training = tmp_path / "btcv" / root / "Training"
    places = (training / "img/img0001.nii.gz", training / "label/label0001.nii.gz")
    scan_with(save_nifti, *places, *range(1, 14))
    touch(training.parent / "Testing" / "img", "img0061.nii.gz")
    found = SOURCES["btcv"](tmp_path / "btcv").organs
    assert found == {"spleen": (1,), "pancreas": (11,), "kidney": (2, 3)}
    manifest = prepared(prepare_here, "btcv", tmp_path / "btcv")
    assert manifest["organs"] == {"spleen": 1, "pancreas": 2, "kidney": 3}
    (case,) = manifest["cases"]
    assert case["case_id"] == "img0001"
    assert case["voxels"] == {"spleen": 8, "pancreas": 8, "kidney": 16}
    assert "1 scans without labels" in manifest["said"]


def test_a_label_that_btcv_does_not_have_is_refused(tmp_path, save_nifti, prepare_here):
    training = tmp_path / "btcv" / "Training"
    places = (training / "img/img0001.nii.gz", training / "label/label0001.nii.gz")
    scan_with(save_nifti, *places, 1, 14)
    words = (f"--input={tmp_path / 'btcv'}", f"--output={tmp_path / 'out'}")
    outcome = prepare_here("--source=btcv", *words)
    assert outcome.status == 3 and "does not name: 14 (8 voxels)" in outcome.err


def test_amos_pools_training_and_validation_and_passes_mri_over(
    tmp_path, save_nifti, prepare_here
):
    for part, numbers in (("Tr", (1, 500, 507)), ("Va", (8, 600))):
        for n in numbers:
            places = (
                tmp_path / "amos22" / f"{kind}{part}" / f"amos_{n:04}.nii.gz"
                for kind in ("images", "labels")
            )
            scan_with(save_nifti, *places, *range(1, 16))
    touch(tmp_path / "amos22" / "imagesTs", "amos_0411.nii.gz", "amos_0541.nii.gz")
    found = SOURCES["amos"](tmp_path / "amos22").organs
    assert found == {"spleen": (1,), "pancreas": (10,), "kidney": (2, 3)}
    manifest = prepared(prepare_here, "amos", tmp_path / "amos22")
    ids = [case["case_id"] for case in manifest["cases"]]
    assert ids == ["amos_0001", "amos_0008", "amos_0500"]
    assert manifest["organs"] == {"spleen": 1, "pancreas": 2, "kidney": 3}
    sizes = {"spleen": 8, "pancreas": 8, "kidney": 16}
    assert all(case["voxels"] == sizes for case in manifest["cases"])
    assert "1 scans without labels" in manifest["said"]


@pytest.fixture
def total(tmp_path, save_nifti):
    """Two cases of TotalSegmentator: masks of four organs, blocks of 8 voxels."""
    folder = tmp_path / "Totalsegmentator_dataset_v201"
    for case in ("s0000", "s0011"):
        hu = np.random.default_rng(int(case[1:])).integers(-1000, 300, (12, 6, 6))
        save_nifti(folder / case / "ct.nii.gz", hu.astype(np.int16))
        for at, organ in enumerate(
            ("spleen", "kidney_left", "kidney_right", "pancreas")
        ):
            mask = np.zeros((12, 6, 6), np.uint8)
            mask[2 * at + 1 : 2 * at + 3, 1:3, 1:3] = 1
            save_nifti(folder / case / "segmentations" / f"{organ}.nii.gz", mask)
        touch(folder / case / "segmentations", "._spleen.nii.gz", "liver.nii.gz")
    (folder / "meta.csv").write_text("image_id;age\ns0000;60\n")
    touch(folder / "no case", "notes.txt")
    return folder


def test_totalsegmentators_masks_become_one_label_map(total, prepare_here):
    manifest = prepared(prepare_here, "totalsegmentator", total)
    assert [case["case_id"] for case in manifest["cases"]] == ["s0000", "s0011"]
    case = manifest["cases"][0]
    assert case["voxels"] == {"spleen": 8, "pancreas": 8, "kidney": 16}
    assert case["label"]["file"] == "segmentations" and case["label"]["files"] == 4


def test_masks_get_the_values_of_totalsegmentators_label_maps(total):
    layout = SOURCES["totalsegmentator"](total)
    label = label_map(layout.pairs[0], layout.organs)
    # Canonical D, H, W are file axes 2, 1, 0 in these files.
    line = label[1, 2].tolist()
    assert line == [0, 1, 1, 3, 3, 2, 2, 7, 7, 0, 0, 0]


def test_only_masks_that_are_asked_for_are_read(total):
    (pair, _) = SOURCES["totalsegmentator"](total).pairs
    organs = {"pancreas": (7,)}
    names = [path.name for path in pair_files(pair, organs)]
    assert names == ["ct.nii.gz", "pancreas.nii.gz"]
    label = label_map(pair, organs)  # liver.nii.gz is an empty file
    assert np.unique(label).tolist() == [0, 7]
    with pytest.raises(BadData, match="liver.nii.gz: content is not gzip"):
        read_pair(pair, {"liver": (5,)})
    with pytest.raises(BadData, match=r"no mask of stomach \(label value 6\)"):
        read_pair(pair, {"stomach": (6,)})


def test_masks_that_overlap_or_lie_elsewhere_are_refused(total, save_nifti):
    (pair, other) = SOURCES["totalsegmentator"](total).pairs
    everywhere = np.ones((12, 6, 6), np.uint8)
    save_nifti(total / "s0000/segmentations/pancreas.nii.gz", everywhere)
    organs = {"spleen": (1,), "pancreas": (7,), "kidney": (2, 3)}
    with pytest.raises(BadData, match="overlaps the mask of "):
        read_pair(pair, organs)
    # Two masks of one organ may overlap: they are merged.
    save_nifti(total / "s0011/segmentations/kidney_left.nii.gz", everywhere)
    assert (label_map(other, {"kidney": (2, 3)}) > 0).all()
    save_nifti(total / "s0011/segmentations/spleen.nii.gz", everywhere[1:])
    with pytest.raises(BadData, match="spleen.nii.gz: not on the grid of|kidney"):
        read_pair(other, {"spleen": (1,), "pancreas": (7,)})


def test_totalsegmentators_label_map_of_all_organs_is_read(
    tmp_path, save_nifti, prepare_here
):
    case = tmp_path / "total" / "s0003"
    places = (case / "ct.nii.gz", case / "segmentation.nii.gz")
    scan_with(save_nifti, *places, 1, 2, 3, 5, 7, 117)
    manifest = prepared(prepare_here, "totalsegmentator", tmp_path / "total")
    sizes = {"spleen": 8, "pancreas": 8, "kidney": 16}
    assert manifest["cases"][0]["voxels"] == sizes
    touch(case, "other.nii.gz")
    (pair,) = SOURCES["totalsegmentator"](tmp_path / "total").pairs
    assert pair.unclear == (
        f"{case}: other.nii.gz and segmentation.nii.gz: which is the label map? leave "
        "one next to ct.nii.gz"
    )


def test_real_masks_of_totalsegmentator_are_its_real_label_map(
    shared, tmp_path, save_nifti
):
    ct = shared / "data" / "ct"
    for name in ("masks", "whole"):
        (tmp_path / name / "s1").mkdir(parents=True)
        (tmp_path / name / "s1" / "ct.nii.gz").symlink_to(
            ct / "totalsegmentator_example.nii.gz"
        )
    real = ct / "totalsegmentator_example_labels.nii.gz"
    (tmp_path / "whole" / "s1" / "labels.nii.gz").symlink_to(real)
    image = nib.Nifti1Image.from_filename(real)
    values = np.asarray(image.dataobj)
    for name, value in (
        ("spleen", 1),
        ("kidney_right", 2),
        ("kidney_left", 3),
        ("pancreas", 7),
    ):
        mask = (values == value).astype(np.uint8)
        path = tmp_path / "masks" / "s1" / "segmentations" / f"{name}.nii.gz"
        save_nifti(path, mask, image.affine)
    organs = {"spleen": (1,), "pancreas": (7,), "kidney": (2, 3)}
    layouts = [SOURCES["totalsegmentator"](tmp_path / n) for n in ("masks", "whole")]
    masks, whole = (label_map(layout.pairs[0], organs) for layout in layouts)
    kept = np.where(np.isin(whole, [1, 2, 3, 7]), whole, 0)
    np.testing.assert_array_equal(masks, kept)
    assert (masks == 7).sum() == 695


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for source in sorted(SOURCES):
        with pytest.raises(BadData, match="nowhere"):
            SOURCES[source](tmp_path / "nowhere")
