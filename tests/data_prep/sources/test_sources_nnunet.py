"""nnU-Net's raw layout: pairs, organs, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.data.labels import LabelMap
from attunet_jax.errors import BadArguments, BadData
from data_prep import verify
from data_prep.sources import find_msd, find_nnunet
from data_prep.sources.layout import parse_organs

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


def test_nnunet_of_another_ending_is_refused(nnunet):
    for ending in [".png", "nii.gz", 7]:
        with pytest.raises(BadArguments, match="file_ending"):
            find_nnunet(nnunet(file_ending=ending))


def test_nnunet_of_two_channels_is_refused(nnunet):
    with pytest.raises(BadArguments, match="2 channels"):
        find_nnunet(nnunet(channel_names={"0": "T1", "1": "T2"}))


def test_nnunet_regions_are_lists_and_names_become_identifiers(nnunet):
    labels = {"background": 0, "left kidney": [1, 2], "vena-cava": 3, "ignore": 4}
    layout = find_nnunet(nnunet(labels=labels))
    assert layout.organs == {"left_kidney": (1, 2), "vena_cava": (3,)}
    assert layout.ignored == (4,)
    assert layout.pairs[0].other_labels == (4,)


def test_the_ways_in_which_people_write_dataset_json_say_the_same(tmp_path, nnunet):
    first = {"modality": {"0": "CT"}, "tensorImageSize": "4D", "numTraining": 2}
    listed = [{"image": f"./imagesTr/{n}.nii.gz"} for n in ("case_a", "case_b")]
    by_value = {"0": "background", "1": "spleen", "2": "left kidney"}
    as_text = {"background": "0", "spleen": "1", "left kidney": "2"}
    for description in [
        first | {"labels": by_value, "training": listed},
        first | {"labels": {str(k): v for k, v in reversed(by_value.items())}},
        first | {"modality": ["CT"], "labels": as_text},
        {"channel_names": {"0": "CT"}, "labels": as_text, "file_ending": ".nii.gz"},
        {"channel_names": ["ct"], "labels": as_text | {"spleen": [1]}},
        {"channel_names": {"0": "CT portal"}, "labels": as_text | {"spleen": 1.0}},
    ]:
        text = json.dumps(description)
        for content in [
            text.encode(),
            b"\xef\xbb\xbf" + text.encode(),
            text.encode("utf-16"),
        ]:
            (nnunet() / "dataset.json").write_bytes(content)
            for layout in (find_nnunet(tmp_path), find_msd(tmp_path)):
                assert layout.organs is not None
                found = sorted(layout.organs.items(), key=lambda item: item[1])
                assert found == [("spleen", (1,)), ("left_kidney", (2,))]
                assert [(p.case_id, p.labelled) for p in layout.pairs] == [
                    ("case_a", True),
                    ("case_b", True),
                ]
                assert all(p.image and p.image.exists() for p in layout.pairs)


def test_a_listed_case_without_files_is_a_case_that_lacks_them(tmp_path, nnunet):
    nnunet(training=[{"image": "./imagesTr/gone.nii.gz"}, {"image": "case_a.nii.gz"}])
    gone = find_nnunet(tmp_path).pairs[-1]
    assert gone.image == tmp_path / "imagesTr" / "gone_0000.nii.gz"
    assert gone.label == tmp_path / "labelsTr" / "gone.nii.gz"


def test_a_broken_dataset_json_is_one_line_with_the_place(tmp_path, nnunet):
    for content, said in [
        (b'{"labels": {"a": 1},}', "line 1 column 21"),
        (b'{"labels": {"a": 1, "a": 2}}', "'a' is there twice"),
        ('{"labels": {"Größe": 1}}'.encode("latin-1"), "not text in UTF-8"),
        (b"[" * 100_000, "recursion"),
    ]:
        (nnunet() / "dataset.json").write_bytes(content)
        for find in (find_nnunet, find_msd):
            with pytest.raises(BadData) as caught:
                find(tmp_path)
            message = str(caught.value)
            assert message.startswith(f"{tmp_path / 'dataset.json'}: not JSON (")
            assert said in message and "\n" not in message


def test_nnunet_descriptions_that_say_no_organs_are_refused_by_name(nnunet):
    for changes in [
        {"labels": ["background", "spleen"]},
        {"labels": {"0": "1", "1": "0"}},  # which are names?
        {"labels": {"background": 1, "spleen": 2}},
        {"labels": {"background": 0}},
        {"labels": {"background": 0, "ignore": 1}},
        {"labels": {"background": 0, "spleen": "one"}},
        {"dataset": {"a": {"images": ["/elsewhere/a.nii.gz"]}}},
        {"labels": {"background": 0, "spleen": 0}},
        {"labels": {"background": 0, "spleen": -1}},
        {"labels": {"background": 0, "spleen": True}},
        {"labels": {"background": 0, "spleen": 1.5}},
        {"labels": {"background": 0, "spleen": []}},
        {"labels": {"background": 0, "left kidney": 1, "left-kidney": 2}},
        {"labels": None},
        {"channel_names": 1},
        {"channel_names": None},
    ]:
        folder = nnunet(**changes)
        with pytest.raises((BadData, BadArguments)) as caught:
            find_nnunet(folder)
        assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


def test_a_dataset_json_of_other_content_is_named(nnunet):
    for text in ["", "{", "[1]", '"x"', "7", "{}"]:
        folder = nnunet()
        (folder / "dataset.json").write_text(text)
        with pytest.raises(BadData) as caught:
            find_nnunet(folder)
        assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


def test_nnunet_regions_that_overlap_leave_the_labels_to_be_named(
    tmp_path, nnunet, prepare_here
):
    nested = {"whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    for labels, line in [
        ({"whole": [1, 2], "part": 2}, "whole_rest=1,part=2"),
        ({"a": 1, "b": 1}, "a_and_b=1"),
        ({"a": [1, 2], "b": [2, 3], "c": 7}, "a_rest=1,a_and_b=2,b_rest=3,c=7"),
        (nested, "whole_tumor_rest=1,core_rest=2,enhancing=3"),
    ]:
        folder = nnunet(labels={"background": 0} | labels)
        layout = find_nnunet(folder)
        assert layout.organs is None
        words = ("--source=nnunet", f"--input={folder}", f"--output={tmp_path / 'out'}")
        outcome = prepare_here(*words)
        assert outcome.status == 2 and "overlap" in outcome.err
        assert outcome.err.rstrip().endswith(f" --labels={line}")
        # What is printed can be pasted; the values to ignore stay those of the file.
        organs, ignored = layout.chosen(line)
        assert organs == parse_organs(line)
        assert ignored == ((4,) if "ignore" in labels else ())


def test_voxels_to_ignore_are_stored_apart_from_background_and_organs(
    tmp_path, save_nifti, prepare_here
):
    label = np.zeros((8, 9, 10), np.uint8)
    label[2:5, 2:5, 2:5], label[6, :, :] = 1, 2  # 27 and 90 voxels
    image = np.random.default_rng(0).integers(-1000, 300, label.shape)
    image = image.astype(np.int16)
    raw, data = tmp_path / "raw", tmp_path / "data"
    save_nifti(raw / "imagesTr" / "x_0000.nii.gz", image)
    save_nifti(raw / "labelsTr" / "x.nii.gz", label)
    description = DATASET | {"labels": {"background": 0, "spleen": 1, "ignore": 2}}
    (raw / "dataset.json").write_text(json.dumps(description))
    words = ("--source=nnunet", f"--input={raw}", "--workers=1")
    assert prepare_here(*words, f"--output={data}").status == 0
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["ignore_value"] == 255 and manifest["organs"] == {"spleen": 1}
    assert manifest["cases"][0]["ignored_voxels"] == 90
    prepared = open_dataset(data)
    assert prepared.labels == LabelMap({"spleen": 1}, ignore_value=255)
    values, counts = np.unique(prepared.case("x").label, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        **{0: 720 - 27 - 90, 1: 27, 255: 90}
    }
    # Nothing is wrong with such voxels.
    looked = [*words[:2], f"--output={tmp_path / 'look'}"]
    assert verify.main([*looked, "--workers=1"]) == 0
    # --labels says so for any layout, and may make an organ of the value instead.
    for flag, stored in [("spleen=1,ignore=2", {0, 1, 255}), ("rim=2,a=1", {0, 1, 2})]:
        out = tmp_path / flag
        assert prepare_here(*words, f"--output={out}", f"--labels={flag}").status == 0
        assert {*np.unique(open_dataset(out).case("x").label).tolist()} == stored


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
    image = np.random.default_rng(0).integers(-1000, 300, label.shape)
    save_nifti(tmp_path / "raw/imagesTr/x_0000.nii.gz", image.astype(np.int16))
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


def test_nnunets_test_images_are_found_without_labels(tmp_path):
    touch(tmp_path / "imagesTr", "a_0000.nii.gz")
    touch(tmp_path / "labelsTr", "a.nii.gz")
    touch(tmp_path / "imagesTs", "b_0000.nii.gz", "b_0001.nii.gz")
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (alone,) = find_nnunet(tmp_path).unlabelled
    assert alone.case_id == "b" and not alone.labelled
    assert alone.image == tmp_path / "imagesTs" / "b_0000.nii.gz"
