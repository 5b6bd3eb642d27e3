"""Scans that may be no CT, and label maps that may be wrong: counted once a kind."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from attunet_jax.volume import different_grids, from_canonical
from data_prep.read import read_pair
from data_prep.sources.layout import ScanPair

ORGAN = np.zeros((40, 30, 20), np.uint8)
ORGAN[4:16, 5:14, 3:9] = 1


@pytest.fixture
def words(tmp_path, save_nifti) -> list[str]:
    """Five cases: a CT, two with values of a picture, two with mirrored label maps."""
    names = ("ct", "grey", "greyer", "mirrored", "turned")
    for seed, name in enumerate(names):
        noise = np.random.default_rng(seed).integers(0, 40, ORGAN.shape)
        hu = np.where(ORGAN, 60, -1000) + noise
        if "grey" in name:
            hu = np.clip(hu + 50, 0, 255)
        label = {"mirrored": ORGAN[::-1], "turned": ORGAN[..., ::-1]}
        place = tmp_path / "scans"
        save_nifti(place / "images" / f"{name}.nii.gz", hu.astype(np.int16))
        save_nifti(place / "labels" / f"{name}.nii.gz", label.get(name, ORGAN))
    where = [f"--input={place}", f"--output={tmp_path / 'data'}"]
    return ["--source=nifti", "--labels=spleen=1", "--workers=1", *where]


def warnings_of(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning: ")]


def test_doubts_are_one_line_a_kind_and_the_cases_are_prepared(
    words, prepare_here, tmp_path
):
    for _ in range(2):  # the second time nothing is left to do
        outcome = prepare_here(*words)
        assert outcome.status == 0 and outcome.err.count("--strict") == 1
        grey, mirrored = warnings_of(outcome.err)
        assert ": 2 (grey, greyer); grey: values from 0 to " in grey
        assert ": 2 (mirrored, turned); mirrored: " in mirrored and "W of" in mirrored
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    doubted = {case["case_id"]: [*case.get("doubts", ())] for case in manifest["cases"]}
    assert doubted == {
        "ct": [],
        "grey": ["range_255"],
        "greyer": ["range_255"],
        "mirrored": ["mirrored"],
        "turned": ["mirrored"],
    }


def test_strict_refuses_doubts_new_and_old(words, prepare_here, tmp_path):
    outcome = prepare_here(*words, "--strict")
    assert outcome.status == 3 and "grey.nii.gz: values from 0 to" in outcome.err
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert prepare_here(*words).status == 0
    outcome = prepare_here(*words, "--strict")
    assert outcome.status == 3 and "grey.nii.gz: values from 0 to" in outcome.err


def test_what_is_no_scan_is_left_out_and_named(
    words, prepare_here, tmp_path, save_nifti
):
    images = tmp_path / "scans" / "images"
    save_nifti(images / "grey.nii.gz", ORGAN)
    save_nifti(images / "greyer.nii.gz", np.full(ORGAN.shape, -1000, np.int16))
    outcome = prepare_here(*words)
    assert outcome.status == 3 and "2 of 5 cases were left out" in outcome.err
    rows = json.loads((tmp_path / "data" / "rejected.json").read_text())["rejected"]
    reasons = {row["case_id"]: row["reason"] for row in rows}
    assert f"{images / 'grey.nii.gz'}: a label map" in reasons["grey"]
    assert "every voxel is -1000" in reasons["greyer"]


def test_a_label_map_that_itk_put_on_a_scan_lies_on_it(tmp_path):
    """Drawn in 3D Slicer or ITK-SNAP, on a scan whose qform and sform differ."""
    affine = np.diag([-2.0, -2, 2, 1])
    turn = np.array([[0, 1.0, 0, 9], [-1, 0, 0, 5], [0, 0, 1, 30], [0, 0, 0, 1]])
    hu = np.random.default_rng(0).integers(-1000, 300, ORGAN.shape).astype(np.int16)
    for sform in (affine + np.eye(4, k=3) * 16, turn @ affine):
        scan = nib.Nifti1Image(hu, sform)
        scan.set_qform(affine, 1)
        scan.set_sform(sform, 2)
        scan.to_filename(tmp_path / "scan.nii")
        seen = sitk.ReadImage(str(tmp_path / "scan.nii"))
        drawn = sitk.GetImageFromArray(ORGAN.T)
        drawn.CopyInformation(seen)
        sitk.WriteImage(drawn, str(tmp_path / "label.nii.gz"))
        pair = ScanPair("a", tmp_path / "scan.nii", tmp_path / "label.nii.gz")
        image, labels = read_pair(pair, {"spleen": (1,)})
        assert labels is not None and different_grids(image, labels) is None
        np.testing.assert_array_equal(from_canonical(labels.voxels, image.grid), ORGAN)
        drawn.SetOrigin([1 + x for x in drawn.GetOrigin()])
        sitk.WriteImage(drawn, str(tmp_path / "label.nii.gz"))
        image, labels = read_pair(pair, {"spleen": (1,)})
        assert labels is not None and different_grids(image, labels)
