"""Folders as data sets lay them out; what is found in them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.data.records import CASE_ID
from attunet_jax.errors import BadArguments, BadData
from data_prep.sources import find_nifti, find_nnunet
from data_prep.sources.layout import case_id_of, parse_organs

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "spleen": 1, "pancreas": 2, "kidney": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def nnunet(tmp_path):
    """A folder of nnU-Net's raw layout; `write` changes its dataset.json."""
    touch(tmp_path / "imagesTr", "case_b_0000.nii.gz", "case_a_0000.nii.gz")
    touch(tmp_path / "labelsTr", "case_a.nii.gz", "case_b.nii.gz")

    def write(**changes):
        text = json.dumps(DATASET | changes)
        (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write


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
def test_a_name_that_is_there_with_both_endings_is_refused(tmp_path, folder):
    for name in ("images", "labels"):
        touch(tmp_path / name, "a.nii.gz")
    touch(tmp_path / folder, "a.nii")
    with pytest.raises(BadData) as caught:
        find_nifti(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / folder / "a.nii") in message and "remove one" in message


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
    affine = np.array([[-0.5, 0, 0, 30], [0, -0.75, 0, 40], [0, 0, 2.5, 50]])
    save_nifti(
        tmp_path / "labels" / "anna.nii.gz", label, np.r_[affine, [[0, 0, 0, 1]]]
    )
    words = (f"--input={tmp_path}", "--labels=pancreas=1", "--spacing_mm=2.5,0.75,0.5")
    outcome = prepare_here("--source=nifti", *words, f"--output={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    case = open_dataset(tmp_path / "out").case("anna")
    np.testing.assert_array_equal(case.image_hu, hu)
    np.testing.assert_array_equal(case.label, label.T)
    touch(tmp_path / "images", "anna.nii.gz")
    with pytest.raises(BadData, match="study: there is also anna.nii.gz; remove one"):
        find_nifti(tmp_path)


@pytest.mark.parametrize(
    "name, case_id",
    [
        ("amos_0007", "amos_0007"),
        ("CT.2-b", "CT.2-b"),
        ("scan 12 (copy)", "scan_12__copy_"),
        ("Müller_Größe", "M_ller_Gr__e"),
        ("患者1", "case__1"),
        ("-x", "case-x"),
        ("_x", "case_x"),
        ("a/../b", "a_.._b"),
        ("a\tb\n", "a_b_"),
        ("x²", "x_"),
    ],
)
def test_an_odd_name_becomes_a_safe_id(name, case_id):
    assert case_id_of(name) == case_id
    assert CASE_ID.fullmatch(case_id)


def test_two_names_that_make_one_id_are_refused(tmp_path):
    for folder in ("images", "labels"):
        touch(tmp_path / folder, "scan 1.nii.gz", "scan_1.nii.gz")
    with pytest.raises(BadData) as caught:
        find_nifti(tmp_path)
    message = str(caught.value)
    assert "'scan 1'" in message and "'scan_1'" in message and "rename" in message


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
        ("Gr__e_1", "Größe 1.nii.gz"),
        ("plain", "plain.nii.gz"),
    ]


def test_nnunet_pairs_lose_the_channel_number_and_bring_their_organs(nnunet):
    folder = nnunet()
    layout = find_nnunet(folder)
    assert [(p.case_id, p.image, p.label) for p in layout.pairs] == [
        (
            name,
            folder / "imagesTr" / f"{name}_0000.nii.gz",
            folder / "labelsTr" / f"{name}.nii.gz",
        )
        for name in ("case_a", "case_b")
    ]
    assert layout.organs == {"spleen": (1,), "pancreas": (2,), "kidney": (3,)}


def test_nnunet_files_that_are_no_first_channel_are_not_scans(nnunet):
    folder = nnunet()
    touch(folder / "imagesTr", "._case_a_0000.nii.gz", "case_c.nii.gz")
    touch(folder / "labelsTr", "._case_a.nii.gz")
    ids = [pair.case_id for pair in find_nnunet(folder).pairs]
    assert ids == ["case_a", "case_b"]


def test_nnunet_reads_the_ending_that_dataset_json_names(tmp_path, nnunet):
    folder = nnunet(file_ending=".nii")
    assert find_nnunet(folder).pairs == []
    touch(tmp_path / "imagesTr", "plain_0000.nii")
    touch(tmp_path / "labelsTr", "plain.nii")
    (pair,) = find_nnunet(folder).pairs
    assert pair.image == tmp_path / "imagesTr" / "plain_0000.nii"
    assert pair.label == tmp_path / "labelsTr" / "plain.nii"


@pytest.mark.parametrize("ending", [".mha", ".png", "nii.gz", None])
def test_nnunet_of_another_ending_is_refused(nnunet, ending):
    with pytest.raises(BadArguments, match="file_ending"):
        find_nnunet(nnunet(file_ending=ending))


def test_nnunet_of_two_channels_is_refused(nnunet):
    with pytest.raises(BadArguments, match="2 channels"):
        find_nnunet(nnunet(channel_names={"0": "T1", "1": "T2"}))


def test_nnunet_regions_are_lists_and_names_become_identifiers(nnunet):
    labels = {"background": 0, "left kidney": [1, 2], "vena-cava": 3, "ignore": 4}
    layout = find_nnunet(nnunet(labels=labels))
    assert layout.organs == {"left_kidney": (1, 2), "vena_cava": (3,)}


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["background", "spleen"]},
        {"labels": {"0": "background", "1": "spleen"}},  # how the first nnU-Net had it
        {"labels": {"background": 0, "spleen": 0}},
        {"labels": {"background": 0, "spleen": -1}},
        {"labels": {"background": 0, "spleen": True}},
        {"labels": {"background": 0, "spleen": 1.5}},
        {"labels": {"background": 0, "spleen": []}},
        {"labels": {"background": 0, "left kidney": 1, "left-kidney": 2}},
        {"labels": None},
        {"channel_names": 1},
        {"channel_names": None},
    ],
    ids=str,
)
def test_nnunet_descriptions_that_say_no_organs_are_refused_by_name(nnunet, changes):
    folder = nnunet(**changes)
    with pytest.raises((BadData, BadArguments)) as caught:
        find_nnunet(folder)
    assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "7", "{}"])
def test_a_dataset_json_of_other_content_is_named(nnunet, text):
    folder = nnunet()
    (folder / "dataset.json").write_text(text)
    with pytest.raises(BadData) as caught:
        find_nnunet(folder)
    assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


@pytest.mark.parametrize("values", [(1, 1), ([1, 2], 2)])
def test_nnunet_regions_that_overlap_leave_the_labels_to_be_named(
    tmp_path, nnunet, prepare_here, values
):
    folder = nnunet(labels=dict(zip(("whole", "part"), values, strict=True)))
    assert find_nnunet(folder).organs is None
    words = ("--source=nnunet", f"--input={folder}", f"--output={tmp_path / 'out'}")
    outcome = prepare_here(*words)
    assert outcome.status == 2 and "give --labels=" in outcome.err


def test_a_folder_without_dataset_json_is_no_nnunet_folder(tmp_path):
    with pytest.raises(BadData, match=r"dataset\.json: missing"):
        find_nnunet(tmp_path)


def test_nnunet_without_one_of_its_folders_is_named(nnunet):
    folder = nnunet()
    for file in (folder / "labelsTr").iterdir():
        file.unlink()
    (folder / "labelsTr").rmdir()
    with pytest.raises(BadData, match="labelsTr: no such folder"):
        find_nnunet(folder)


def test_an_nnunet_folder_is_prepared_without_labels_being_named(
    tmp_path, save_nifti, prepare_here
):
    label = np.zeros((8, 9, 10), np.uint8)
    label[2:5, 2:5, 2:5] = 2
    save_nifti(tmp_path / "raw/imagesTr/x_0000.nii.gz", label.astype(np.int16) * 50)
    save_nifti(tmp_path / "raw/labelsTr/x.nii.gz", label)
    (tmp_path / "raw/dataset.json").write_text(json.dumps(DATASET))
    words = ("--source=nnunet", f"--input={tmp_path / 'raw'}", "--workers=1")
    assert prepare_here(*words, f"--output={tmp_path / 'a'}").status == 0
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["organs"] == {"spleen": 1, "pancreas": 2, "kidney": 3}
    # --labels stands above what the folder says.
    named = (*words, f"--output={tmp_path / 'b'}", "--labels=gland=2")
    assert prepare_here(*named).status == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["organs"] == {"gland": 1}
    assert manifest["cases"][0]["voxels"] == {"gland": 27}


@pytest.mark.parametrize(
    "text, organs",
    [
        ("spleen=1", {"spleen": (1,)}),
        ("spleen=1,pancreas=7", {"spleen": (1,), "pancreas": (7,)}),
        ("pancreas=7, kidney=2+3", {"pancreas": (7,), "kidney": (2, 3)}),
        ("a=65535", {"a": (65535,)}),
    ],
)
def test_labels_are_read_in_their_order(text, organs):
    found = parse_organs(text)
    assert found == organs and list(found) == list(organs)


@pytest.mark.parametrize(
    "text, words",
    [
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
        ("spleen=1,spleen=2", "'spleen' cannot be named (again)"),
        ("background=1", "'background' cannot be named (again)"),
        ("spleen=1,pancreas=1", "value 1 is both spleen and pancreas"),
        ("kidney=2+2", "value 2 is both kidney and kidney"),
    ],
)
def test_labels_that_mean_nothing_are_quoted(text, words):
    with pytest.raises(BadArguments) as caught:
        parse_organs(text)
    message = str(caught.value)
    assert message.startswith("--labels: ") and words in message
    assert "\n" not in message
