"""Pancreas-CT as the archive has it, small: how its labels lie is found by their HU."""

import json
import re
from itertools import product

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, read_scan
from data_prep.align import best_flip
from data_prep.phantoms.patient import make_patient
from data_prep.read import read_pair
from data_prep.sources import SOURCES
from data_prep.sources.layout import ScanPair

SPACING = (5.0, 4.0, 4.0)
SHAPE = (34, 62, 80)  # slices, rows, columns
PANCREAS = 2
ORGANS = {"pancreas": (1,)}


@pytest.fixture(scope="module")
def patient() -> tuple[np.ndarray, np.ndarray]:
    """(HU, pancreas 0 or 1) of a phantom: DICOM's slices, rows, columns."""
    rng = np.random.default_rng(5)
    hu, labels = make_patient(rng, SHAPE, np.array(SPACING))
    return hu, (labels == PANCREAS).astype(np.uint8)


@pytest.fixture
def add_case(tmp_path, write_series, save_nifti, patient):
    """Adds a case with its label's file axes flipped as asked; returns the folder."""
    root = tmp_path / "CT-82"

    def add(number: int, flips: tuple[int, ...] = (), hu=None, label=None):
        hu = patient[0] if hu is None else hu
        label = patient[1] if label is None else label
        study = root / "manifest-1599750808610/Pancreas-CT" / f"PANCREAS_{number:04}"
        series = study / "11-24-2015-PANCREAS0001-Pancreas-18957" / "Pancreas-99667"
        write_series(
            series,
            hu,
            spacing=SPACING,
            origin=(-158.0, -122.0, -85.0),
            name="1-{:03}.dcm",
            uid=f"1.2.826.0.1.3680043.2.1125.1.{number}",
            # The archive counts slices from the head.
            InstanceNumber=tuple(range(len(hu), 0, -1)),
        )
        # A header that is nowhere near the DICOM's, as the archive's are.
        stored = np.flip(label.transpose(2, 1, 0), flips)
        where = root / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04}.nii.gz"
        save_nifti(where, stored, np.diag([0.8, 0.8, 1.0, 1.0]))
        return root

    return add


ALL_FLIPS = [
    tuple(a for a, yes in enumerate(choice) if yes)
    for choice in product((0, 1), repeat=3)
]


def test_a_label_lies_on_the_dicom_however_its_axes_run(add_case, save_nifti, patient):
    (pair,) = SOURCES["tcia_pancreas"](add_case(1)).pairs
    for flips in ALL_FLIPS:
        stored = np.flip(patient[1].transpose(2, 1, 0), flips)
        save_nifti(pair.label, stored, np.diag([0.8, 0.8, 1.0, 1.0]))
        image, label = read_pair(pair, ORGANS)
        assert label is not None and label.grid is image.grid
        np.testing.assert_array_equal(label.voxels, patient[1])
        np.testing.assert_array_equal(image.voxels, patient[0])
        by_hand = [[0, 0, -4, 158], [0, -4, 0, 122], [5, 0, 0, -85], [0, 0, 0, 1]]
        np.testing.assert_allclose(label.affine, by_hand, atol=1e-9)


def test_the_archives_folders_are_prepared_by_one_command(
    add_case, patient, prepare_here, tmp_path
):
    for number, flips in ((1, (1,)), (3, (1, 2)), (24, ())):
        root = add_case(number, flips)
    for number in (25, 70):  # withdrawn: an empty folder, a label without a scan
        root = add_case(number)
    scans = root / "manifest-1599750808610/Pancreas-CT"
    for number in (25, 70):
        for path in sorted((scans / f"PANCREAS_{number:04}").rglob("*.dcm")):
            path.unlink()
    (scans / "LICENSE").write_text("TCIA")
    (root / "TCIA_pancreas_labels-02-05-2017" / "._label0001.nii.gz").touch()
    output = tmp_path / "prepared"
    outcome = prepare_here(
        "--source=tcia_pancreas",
        f"--input={root}",
        f"--output={output}",
        "--spacing_mm=5,4,4",
        "--folds=ct82",
    )
    assert outcome.status == 0, outcome.err
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["organs"] == {"pancreas": 1}
    names = [case["case_id"] for case in manifest["cases"]]
    assert names == ["PANCREAS_0001", "PANCREAS_0003", "PANCREAS_0024"]
    entry = manifest["cases"][0]
    assert entry["image"]["file"] == "Pancreas-99667"
    assert entry["image"]["files"] == SHAPE[0]
    assert entry["label"]["file"] == "label0001.nii.gz"
    for name in names:
        case = open_dataset(output).case(name)
        np.testing.assert_array_equal(case.image_hu, patient[0])
        np.testing.assert_array_equal(case.label, patient[1])


def test_labels_and_scans_without_folders_between_are_found(
    tmp_path, write_series, save_nifti, patient
):
    write_series(tmp_path / "PANCREAS_0002", patient[0], spacing=SPACING)
    save_nifti(tmp_path / "label0002.nii.gz", patient[1].transpose(2, 1, 0))
    (pair,) = SOURCES["tcia_pancreas"](tmp_path).pairs
    expected = ScanPair(
        "PANCREAS_0002",
        tmp_path / "PANCREAS_0002",
        tmp_path / "label0002.nii.gz",
        label_by_index=True,
    )
    assert pair == expected
    _, label = read_pair(pair, ORGANS)
    assert label is not None
    np.testing.assert_array_equal(label.voxels, patient[1])


def refusal(pair: ScanPair) -> str:
    with pytest.raises(BadData) as caught:
        read_pair(pair, ORGANS)
    message = str(caught.value)
    assert message.startswith(str(pair.label)) and "\n" not in message
    return message


def test_a_label_of_another_size_is_refused(add_case, patient):
    root = add_case(1, label=patient[1][1:])
    (pair,) = SOURCES["tcia_pancreas"](root).pairs
    assert "80 x 62 x 33 voxels, its scan has 80 x 62 x 34" in refusal(pair)


def test_an_empty_label_is_refused(add_case, patient):
    root = add_case(1, label=0 * patient[1])
    assert "nothing is labelled" in refusal(SOURCES["tcia_pancreas"](root).pairs[0])


def test_a_label_of_another_patient_is_refused(add_case, patient):
    # The pancreas of a phantom moved far to the back: on fat, bone and muscle.
    root = add_case(1, label=np.roll(patient[1], (6, 27, 13), axis=(0, 1, 2)))
    said = refusal(SOURCES["tcia_pancreas"](root).pairs[0])
    assert "soft tissue" in said and ("expected" in said or "about as good" in said)


def test_fat_under_a_label_is_refused_with_its_hu(add_case, patient):
    hu = np.where(patient[1], -90, patient[0]).astype(np.int16)
    hu[patient[1] == 0] = -100
    root = add_case(1, hu=hu)
    said = refusal(SOURCES["tcia_pancreas"](root).pairs[0])
    assert "0% soft tissue under it, at least 60% expected" in said


def test_a_scan_that_is_its_own_mirror_image_is_refused(add_case, patient):
    hu, label = (np.maximum(a, a[:, :, ::-1]) for a in patient)
    root = add_case(1, hu=hu, label=label)
    said = refusal(SOURCES["tcia_pancreas"](root).pairs[0])
    assert "columns flipped" in said and "it is about as good" in said


def test_scans_that_cannot_be_told_or_read_are_left_out_by_name(
    add_case, write_series, patient, prepare_here, tmp_path
):
    for number in (1, 2, 3):
        root = add_case(number)
    scans = root / "manifest-1599750808610/Pancreas-CT"
    second = scans / "PANCREAS_0002" / "study" / "other series"
    write_series(second, patient[0], spacing=SPACING)
    (root / "TCIA_pancreas_labels-02-05-2017" / "label0003.nii.gz").unlink()
    outcome = prepare_here(
        "--source=tcia_pancreas", f"--input={root}", f"--output={tmp_path / 'out'}"
    )
    assert outcome.status == 3 and "2 of 3 cases were left out" in outcome.err
    assert f"PANCREAS_0002: {scans / 'PANCREAS_0002'}: no slices of a CT" in outcome.err
    assert "but below, in " in outcome.err and "other series" in outcome.err
    assert "PANCREAS_0003" in outcome.err and "without a label map" in outcome.err


def test_a_number_that_occurs_twice_is_one_unclear_case(add_case):
    root = add_case(1)
    (root / "copy" / "PANCREAS_0001").mkdir(parents=True)
    (pair,) = SOURCES["tcia_pancreas"](root).pairs
    assert pair.unclear and pair.image is pair.label is None
    assert re.search("PANCREAS_0001: there is also .*PANCREAS_0001; ", pair.unclear)


def test_a_label_whose_mirror_image_lies_in_the_liver_is_told_by_its_ring():
    hu = np.full((10, 20, 40), -100, np.int16)
    hu[:, :, 22:] = 90  # as soft as the organ, and all around the mirrored label
    label = np.zeros(hu.shape, np.uint8)
    label[2:5, 4:9, 5:12] = 1
    hu[label > 0] = 80
    image = Volume(hu, np.diag([5.0, 4.0, 4.0, 1.0]), None, "s")  # pyright: ignore
    for flips in ALL_FLIPS:
        assert best_flip(image, np.flip(label, flips), "label") == flips


@pytest.mark.parametrize("value, organ", [(1, "spleen"), (2, "kidney"), (5, "liver")])
def test_organs_of_a_real_scan_lie_right_unflipped(shared, value, organ):
    ct = shared / "data" / "ct"
    image = read_scan(ct / "totalsegmentator_example.nii.gz")
    labels = read_scan(ct / "totalsegmentator_example_labels.nii.gz")
    for flips in ALL_FLIPS:
        label = np.flip(labels.voxels == value, flips)
        assert best_flip(image, label, organ) == flips


def test_the_phantoms_organs_lie_right_in_any_patient():
    for seed in range(3):
        hu, labels = make_patient(np.random.default_rng(seed), SHAPE, np.array(SPACING))
        affine = np.diag([5.0, 4.0, 4.0, 1.0])
        image = Volume(hu, affine, None, "phantom")  # pyright: ignore
        assert best_flip(image, labels == PANCREAS, "label") == ()
