"""What `prepare` does with values that are none of the body, and what it counts."""

import json

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadData

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"


def voxels_of(path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


@pytest.fixture
def scans(make_scans, save_nifti, tmp_path):
    """The same scan as it is, padded as scanners do, clipped by hand, with metal."""
    folder = make_scans(tmp_path / "scans", "plain")
    image = voxels_of(folder / "images" / "plain.nii.gz")
    label = voxels_of(folder / "labels" / "plain.nii.gz")
    corner, spot = np.s_[:2, -3:, :], np.s_[1, 1, 1]  # background, and an organ
    for name, outside, metal in (
        ("padded", -3024, 30000),
        ("clipped", -1024, 3071),
    ):
        changed = image.copy()
        changed[corner] = outside
        changed[spot] = metal
        for kind, voxels in (("images", changed), ("labels", label)):
            save_nifti(folder / kind / f"{name}.nii.gz", voxels)
    return folder


def prepared(prepare_here, scans, output, *words):
    outcome = prepare_here(
        "--source=nifti", f"--input={scans}", f"--output={output}", LABELS,
        "--workers=1", *words,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return open_dataset(output)


def test_padding_and_metal_are_prepared_as_if_clipped_by_hand(
    scans, prepare_here, tmp_path
):
    for words in ((), ("--blur_mm=2", "--spacing_mm=3")):
        data = prepared(prepare_here, scans, tmp_path / f"data{len(words)}", *words)
        padded, clipped = (data.case(name) for name in ("padded", "clipped"))
        np.testing.assert_array_equal(padded.image_hu, clipped.image_hu)
        assert padded.hu == clipped.hu
        assert data.hu_range == [-1024, 3071]


def test_the_manifest_counts_the_hu_of_the_labelled_voxels_of_each_case(
    scans, prepare_here, tmp_path
):
    data = prepared(prepare_here, scans, tmp_path / "data")  # at the scans' own 2 mm
    for entry in data.manifest["cases"]:
        image, label = (
            voxels_of(scans / kind / f"{entry['case_id']}.nii.gz")
            for kind in ("images", "labels")
        )
        labelled = image[label > 0].clip(-1024, 3071)
        hu, counts = np.unique(labelled, return_counts=True)
        stored = entry["labelled_hu"]
        listed = np.array(stored["counts"].split(), int)
        expected = np.zeros(hu[-1] - hu[0] + 1, int)
        expected[hu - hu[0]] = counts
        assert stored["first"] == hu[0]
        np.testing.assert_array_equal(listed, expected)
    both = data.labelled_hu(["plain", "clipped"])
    assert both is not None and both.size == 2 * (27 + 18 + 12)


def test_a_damaged_count_is_named_and_counts_of_before_are_none(
    scans, prepare_here, tmp_path
):
    output = tmp_path / "data"
    prepared(prepare_here, scans, output)
    manifest = json.loads((output / "manifest.json").read_text())
    for case in manifest["cases"]:
        del case["labelled_hu"], case["hu"]["tissue"]
    del manifest["settings"]["hu_range"]
    (output / "manifest.json").write_text(json.dumps(manifest))
    before = open_dataset(output)
    assert before.labelled_hu(["plain"]) is None and before.hu_range is None
    assert before.hu_levels(["plain"]) == []
    manifest["cases"][1]["labelled_hu"] = {"first": 1, "counts": "three"}
    (output / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadData, match="manifest.json: labelled_hu of case padded is"):
        open_dataset(output)


def test_data_prepared_before_values_were_clipped_are_not_mixed_with_new(
    scans, prepare_here, tmp_path
):
    output = tmp_path / "data"
    prepared(prepare_here, scans, output)
    manifest = json.loads((output / "manifest.json").read_text())
    del manifest["settings"]["hu_range"]
    (output / "manifest.json").write_text(json.dumps(manifest))
    outcome = prepare_here(
        "--source=nifti", f"--input={scans}", f"--output={output}", LABELS
    )
    assert outcome.status == 2 and "another hu_range (None there" in outcome.err
    assert outcome.err.count("\n") == 1
