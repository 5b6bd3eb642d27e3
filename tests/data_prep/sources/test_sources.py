"""Folders as data sets lay them out; what is found in them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.data.case_id import case_id_of, is_case_id
from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadArguments, BadData
from data_prep.sources import find_nifti
from data_prep.sources.layout import parse_organs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_and_labels_of_equal_name_are_pairs_in_the_order_of_their_names(
    tmp_path,
):
    touch(tmp_path / "images", "b.nii.gz", "a.nii", "c.nii.gz")
    touch(tmp_path / "labels", "a.nii.gz", "c.nii.gz", "b.nii.gz")
    layout = find_nifti(tmp_path)
    images, labels = tmp_path / "images", tmp_path / "labels"
    assert [(p.case_id, p.image, p.label) for p in layout.pairs] == [
        ("a", images / "a.nii", labels / "a.nii.gz"),
        ("b", images / "b.nii.gz", labels / "b.nii.gz"),
        ("c", images / "c.nii.gz", labels / "c.nii.gz"),
    ]
    assert layout.organs is None


def test_a_missing_half_leaves_a_gap_in_its_pair(tmp_path):
    touch(tmp_path / "images", "a.nii.gz", "b.nii.gz")
    touch(tmp_path / "labels", "b.nii.gz", "c.nii.gz")
    halves = [
        (p.case_id, p.image is None, p.label is None)
        for p in find_nifti(tmp_path).pairs
    ]
    assert halves == [("a", False, True), ("b", False, False), ("c", True, False)]


def test_what_macos_and_people_leave_beside_scans_is_no_scan(tmp_path):
    for folder in ("images", "labels"):
        touch(tmp_path / folder, "a.nii.gz", "._a.nii.gz", ".DS_Store", "readme.txt")
        touch(tmp_path / folder, "a.json", "Thumbs.db", ".b.nii.gz", ".nii.gz")
    assert [pair.case_id for pair in find_nifti(tmp_path).pairs] == ["a"]


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_name_that_is_there_with_both_endings_is_one_unclear_case(tmp_path, folder):
    for name in ("images", "labels"):
        touch(tmp_path / name, "a.nii.gz", "b.nii")
    touch(tmp_path / folder, "a.nii")
    a, b = find_nifti(tmp_path).pairs
    place = tmp_path / folder
    assert a.unclear == f"{place / 'a.nii.gz'}: there is also a.nii; remove one"
    assert {*a.candidates} == {place / "a.nii", *tmp_path.glob("*/a.nii.gz")}
    assert b.unclear is None and b.image and b.label


def test_a_missing_folder_of_images_is_named(tmp_path):
    touch(tmp_path / "labels", "a.nii.gz")
    with pytest.raises(BadData, match="images: no such folder"):
        find_nifti(tmp_path)


def test_without_a_folder_of_labels_scans_are_for_prediction(tmp_path, prepare_here):
    touch(tmp_path / "images", "a.nii.gz", "b.nii")
    layout = find_nifti(tmp_path)
    found = [(pair.case_id, pair.image) for pair in layout.unlabelled]
    images = tmp_path / "images"
    assert found == [("a", images / "a.nii.gz"), ("b", images / "b.nii")]
    assert layout.pairs == []
    words = (f"--input={tmp_path}", f"--output={tmp_path / 'out'}", "--labels=x=1")
    outcome = prepare_here("--source=nifti", *words)
    assert outcome.status == 3 and "2 scans and no label maps" in outcome.err


def test_a_dicom_series_and_a_nifti_label_map_are_a_case(
    tmp_path, write_series, save_nifti, prepare_here
):
    label = np.zeros((5, 6, 4), np.uint8)  # columns, rows, slices
    label[1:3, 1:4, 1:3] = 1
    hu = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    write_series(tmp_path / "images" / "anna" / "study", hu)
    scout = tmp_path / "images" / "anna" / "scout"
    for place in (
        scout,
        scout.with_name("study"),
    ):  # in a folder of its own, and beside
        write_series(place, hu[:1], name="s", ImageType=["ORIGINAL", "LOCALIZER"])
    touch(tmp_path / "images", "notes.txt", ".DS_Store")
    affine = np.array([[-0.5, 0, 0, 30], [0, -0.75, 0, 40], [0, 0, 2.5, 50]])
    save_nifti(
        tmp_path / "labels" / "anna.nii.gz", label, np.r_[affine, [[0, 0, 0, 1]]]
    )
    words = (f"--input={tmp_path}", "--labels=pancreas=1", "--spacing_mm=2.5,0.75,0.5")
    outcome = prepare_here("--source=nifti", *words, f"--output={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    assert "no slices, passed over: 1 localizers\n" in outcome.out
    kinds = "1 .txt files, 1 DICOM files of no case, 1 hidden files"
    assert f"of no case, not used: {kinds}\n" in outcome.out
    case = open_dataset(tmp_path / "out").case("anna")
    np.testing.assert_array_equal(case.image_hu, hu)
    np.testing.assert_array_equal(case.label, label.T)
    touch(tmp_path / "images", "anna.nii.gz")
    (pair,) = find_nifti(tmp_path).pairs
    assert pair.unclear and pair.unclear.endswith(
        "study: there is also anna.nii.gz; remove one"
    )


def test_files_of_a_case_may_lie_in_folders_of_its_own(tmp_path):
    touch(tmp_path / "images", "a/ct.nii.gz", "b/x/ct.NII", "c/1.nii.gz", "c/2.nii.gz")
    touch(tmp_path / "labels", "a.nii.gz", "b/label.Nii.gz", "c/1.nii", "c/2.nii")
    pairs = [
        (pair.case_id, str(pair.image), str(pair.label))
        for pair in find_nifti(tmp_path).pairs
    ]
    images, labels = tmp_path / "images", tmp_path / "labels"
    assert pairs == [
        ("a", f"{images}/a/ct.nii.gz", f"{labels}/a.nii.gz"),
        ("b", f"{images}/b/x/ct.NII", f"{labels}/b/label.Nii.gz"),
        ("c_1", f"{images}/c/1.nii.gz", f"{labels}/c/1.nii"),
        ("c_2", f"{images}/c/2.nii.gz", f"{labels}/c/2.nii"),
    ]


def test_letters_of_one_name_may_be_composed_or_not(tmp_path):
    touch(tmp_path / "images", "Gro\u0308\u00dfe.NII.GZ")
    touch(tmp_path / "labels", "Gr\u00f6\u00dfe.nii")
    (pair,) = find_nifti(tmp_path).pairs
    assert (pair.case_id, pair.unclear) == ("Gr\u00f6\u00dfe", None)
    assert pair.image and pair.label


def test_one_of_several_series_in_a_folder_is_prepared_when_it_is_named(
    tmp_path, write_series, save_nifti, prepare_here
):
    hu = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    images = tmp_path / "images"
    write_series(images / "ben", hu, name="a{}", uid="1.2.3")
    write_series(images / "ben", hu + 500, name="b{}", uid="1.2.4")
    write_series(images / "anna", hu, uid="1.2.5")
    affine = np.array([[-0.5, 0, 0, 30], [0, -0.75, 0, 40], [0, 0, 2.5, 50]])
    for name in ("anna", "ben"):
        save_nifti(
            tmp_path / "labels" / f"{name}.nii.gz",
            np.ones((5, 6, 4), np.uint8),
            np.r_[affine, [[0, 0, 0, 1]]],
        )
    words = (
        *("--source=nifti", "--labels=pancreas=1", "--spacing_mm=2.5,0.75,0.5"),
        *(f"--input={tmp_path}", f"--output={tmp_path / 'out'}"),
    )
    for wrong in ((), ("--series=1.2.3,1.2.4",), ("--series=1.2.5",)):
        outcome = prepare_here(*words, *wrong)
        assert outcome.status == 3
        assert "ben: 2 series in one folder: 1.2.3 (4 slices, 'Abd" in outcome.err
    outcome = prepare_here(*words, "--series=1.2.4,1.2.9")
    assert outcome.status == 0, outcome.err
    data = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(data.case("ben").image_hu, hu + 500)
    np.testing.assert_array_equal(data.case("anna").image_hu, hu)
    assert prepare_here(*words, "--series=1.2.3").status == 0
    ben = open_dataset(tmp_path / "out").case("ben")
    np.testing.assert_array_equal(ben.image_hu, hu)


def test_an_odd_name_becomes_a_safe_id():
    for name, case_id in [
        ("amos_0007", "amos_0007"),
        ("CT.2-b", "CT.2-b"),
        ("scan 12 (copy)", "scan_12__copy_"),
        ("Müller_Größe", "Müller_Größe"),
        ("Mu\u0308ller", "Müller"),  # decomposed, as macOS writes names
        ("患者1", "患者1"),
        ("रोगी 2", "रोगी_2"),
        ("\udce9t\udce9", "case_t_"),  # a name that is no UTF-8
        ("-x", "case-x"),
        ("_x", "case_x"),
        ("a/../b", "a_.._b"),
        ("a\tb\n", "a_b_"),
        ("x²", "x_"),
    ]:
        assert case_id_of(name) == case_id
        assert is_case_id(case_id)


def test_two_names_that_make_one_id_are_one_unclear_case(tmp_path):
    for folder in ("images", "labels"):
        touch(tmp_path / folder, "scan 1.nii.gz", "scan_1.nii.gz")
    (pair,) = find_nifti(tmp_path).pairs
    assert pair.case_id == "scan_1" and len(pair.candidates) == 4
    assert pair.unclear == (
        f"{tmp_path / 'images'}: 'scan 1' and 'scan_1' would both be case scan_1; "
        "rename one"
    )


def test_odd_names_go_all_the_way_to_the_manifest(tmp_path, make_scans, prepare_here):
    make_scans(tmp_path / "in put", "Größe 1", "plain")
    outcome = prepare_here(
        "--source=nifti",
        f"--input={tmp_path / 'in put'}",
        f"--output={tmp_path / 'prepared'}",
        "--labels=spleen=1,pancreas=2,kidney=3",
        "--workers=1",
    )
    assert outcome.status == 0
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    assert [(c["case_id"], c["image"]["file"]) for c in manifest["cases"]] == [
        ("Größe_1", "Größe 1.nii.gz"),
        ("plain", "plain.nii.gz"),
    ]


def test_labels_are_read_in_their_order():
    for text, organs in [
        ("spleen=1", {"spleen": (1,)}),
        ("spleen=1,pancreas=7", {"spleen": (1,), "pancreas": (7,)}),
        ("pancreas=7, kidney=2+3", {"pancreas": (7,), "kidney": (2, 3)}),
        ("a=65535", {"a": (65535,)}),
    ]:
        found = parse_organs(text)
        assert found == organs and list(found) == list(organs)


def test_labels_that_mean_nothing_are_quoted():
    for text, words in [
        ("", "''"),
        ("spleen", "'spleen'"),
        ("spleen=", "'spleen='"),
        ("=1", "'=1'"),
        ("spleen=x", "'spleen=x'"),
        ("spleen=1.5", "'spleen=1.5'"),
        ("spleen=0", "'spleen=0'"),
        ("spleen=-1", "'spleen=-1'"),
        ("spleen=1+", "'spleen=1+'"),
        ("spleen=1,", "''"),
        ("spleen=1;pancreas=2", "'spleen=1;pancreas=2'"),
        ("left kidney=1", "'left kidney=1'"),
        ("1=spleen", "'1=spleen'"),
        ("spleen=1,spleen=2", "'spleen' is named twice"),
        ("background=1", "'background' cannot be the name"),
        ("spleen=1,pancreas=1", "value 1 is both spleen and pancreas"),
        ("kidney=2+2", "value 2 is both kidney and kidney"),
    ]:
        with pytest.raises(BadArguments) as caught:
            parse_organs(text)
        message = str(caught.value)
        assert message.startswith("--labels: ") and words in message
        assert "\n" not in message
