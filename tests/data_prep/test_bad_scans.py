"""Folders that cannot be used as they are, mended ones, and words that mean nothing."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import cut, load, save

from attunet_jax.data.dataset import open_dataset

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"


def halves(folder: Path, name: str) -> tuple[Path, Path]:
    file = f"{name}.nii.gz"
    return folder / "images" / file, folder / "labels" / file


@pytest.fixture
def words(tmp_path) -> tuple[str, ...]:
    return (
        "--source=nifti",
        f"--input={tmp_path / 'scans'}",
        f"--output={tmp_path / 'prepared'}",
        LABELS,
        "--workers=1",
    )


@pytest.fixture
def scans(tmp_path, make_scans) -> Path:
    return make_scans(tmp_path / "scans", "a", "b", "c")


def test_unnamed_label_values_can_be_counted_as_background(
    tmp_path, scans, words, prepare_here
):
    label = scans / "labels" / "b.nii.gz"
    voxels, affine = load(label)
    voxels[0, 0, :5] = 9
    save(label, voxels, affine)
    outcome = prepare_here(*words, "--ignore_unknown_labels", "--spacing_mm=2")
    assert outcome.status == 0
    assert not (tmp_path / "prepared" / "rejected.json").exists()
    dataset = open_dataset(tmp_path / "prepared")
    counts = np.bincount(dataset.case("b").label.ravel())
    assert counts.tolist() == [720 - 27 - 18 - 12, 27, 18, 12]
    assert dataset.manifest["cases"][1]["voxels"] == {
        "spleen": 27,
        "pancreas": 18,
        "kidney": 12,
    }


def test_a_report_of_bad_cases_goes_when_they_are_mended(
    tmp_path, scans, words, prepare_here
):
    image, label = halves(scans, "b")
    shutil.copytree(scans, tmp_path / "copy")
    cut(image, 99)
    assert prepare_here(*words).status == 3
    assert prepare_here(*words).status == 3  # as long as it is bad, it is said
    shutil.copy(tmp_path / "copy" / "images" / image.name, image)
    assert prepare_here(*words).status == 0
    assert not (tmp_path / "prepared" / "rejected.json").exists()
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b", "c")


def test_a_missing_half_that_is_added_makes_the_case_usable(
    tmp_path, scans, words, prepare_here
):
    _, label = halves(scans, "b")
    content = label.read_bytes()
    label.unlink()
    assert prepare_here(*words).status == 3
    label.write_bytes(content)
    assert prepare_here(*words).status == 0
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b", "c")


def test_a_second_file_for_a_case_leaves_it_out_until_it_is_gone(
    tmp_path, scans, words, prepare_here
):
    assert prepare_here(*words).status == 0
    second = scans / "images" / "b.nii"
    for content in (b"another", b"a third"):
        second.write_bytes(content)
        outcome = prepare_here(*words)
        assert outcome.status == 3
        assert f"b: {second}.gz: there is also b.nii; remove one" in outcome.err
        assert open_dataset(tmp_path / "prepared").case_ids == ("a", "c")
    second.rename(scans / "labels" / "b.nii")
    said = f"b: {scans / 'labels' / 'b.nii.gz'}: there is also b.nii; remove one"
    assert said in prepare_here(*words).err
    (scans / "labels" / "b.nii").rename(scans / "images" / "c.nii")
    assert "\n  c: " in prepare_here(*words).err
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b")
    (scans / "images" / "c.nii").unlink()
    assert prepare_here(*words).status == 0
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b", "c")


def test_a_label_map_that_is_moved_among_the_images_is_no_known_case(
    tmp_path, scans, words, prepare_here
):
    image = scans / "images" / "b.nii.gz"
    image.with_suffix("").write_bytes(gzip.decompress(image.read_bytes()))
    image.unlink()
    assert prepare_here(*words).status == 0
    (scans / "labels" / "b.nii.gz").rename(image)  # size and time stay
    assert prepare_here(*words).status == 3
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "c")


def test_where_no_case_can_be_used_no_manifest_is_left(
    tmp_path, scans, words, prepare_here
):
    assert prepare_here(*words).status == 0
    assert (tmp_path / "prepared" / "manifest.json").exists()
    for name in "abc":
        cut(scans / "images" / f"{name}.nii.gz", 99)
    outcome = prepare_here(*words)
    assert outcome.status == 3
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and "no case could be used" in last
    assert f"{scans / 'images' / 'a.nii.gz'}: truncated" in last
    assert not (tmp_path / "prepared" / "manifest.json").exists()
    report = json.loads((tmp_path / "prepared" / "rejected.json").read_text())
    assert [row["case_id"] for row in report["rejected"]] == ["a", "b", "c"]


def one_error_line(outcome, status: int) -> str:
    assert outcome.status == status
    assert outcome.err.count("\n") == 1 and outcome.err.startswith("error: ")
    return outcome.err


def test_an_empty_folder_is_named(tmp_path, words, prepare_here):
    for name in ("images", "labels"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    line = one_error_line(prepare_here(*words), 3)
    assert f"{tmp_path / 'scans'}: no scans found" in line
    assert not (tmp_path / "prepared").exists()


def test_a_folder_without_images_is_named(tmp_path, scans, words, prepare_here):
    shutil.rmtree(scans / "images")
    line = one_error_line(prepare_here(*words), 3)
    assert f"{scans / 'images'}: no such folder" in line


def test_an_input_that_does_not_exist_is_named(tmp_path, words, prepare_here):
    line = one_error_line(prepare_here(*words), 3)
    assert str(tmp_path / "scans") in line and "no such folder" in line


def test_an_output_that_cannot_be_written_is_named(
    tmp_path, scans, words, prepare_here
):
    for below in ["file", "file/prepared"]:
        # Root may write everywhere but below a regular file.
        (tmp_path / "file").write_text("mine")
        line = one_error_line(prepare_here(*words, f"--output={tmp_path / below}"), 3)
        assert f"{tmp_path / below}: cannot be written (Not a directory)" in line
        assert "choose another --output" in line
        assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_manifest_of_an_earlier_run_is_named(
    tmp_path, scans, words, prepare_here
):
    for text in ['{"organs', "[]", "", "\xff"]:
        notes = tmp_path / "prepared" / "manifest.json"
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(text, encoding="latin-1")
        assert f"{notes}: damaged" in one_error_line(prepare_here(*words), 3)


def test_labels_that_cannot_be_read_are_a_bad_argument(
    tmp_path, scans, words, prepare_here
):
    for text in [
        "spleen",
        "spleen=0",
        "spleen=1,spleen=2",
        "spleen=1;pancreas=2",
        "=",
        ",",
    ]:
        line = one_error_line(prepare_here(*words, f"--labels={text}"), 2)
        assert line.startswith("error: --labels: ")
        assert not (tmp_path / "prepared").exists()


def test_a_folder_that_does_not_say_what_labels_mean_needs_labels(
    tmp_path, scans, words, prepare_here
):
    bare = [word for word in words if word != LABELS]
    line = one_error_line(prepare_here(*bare), 2)
    assert "--labels=spleen=1,pancreas=2,kidney=3" in line


def test_a_number_that_means_nothing_is_named_before_anything_is_done(
    tmp_path, scans, words, prepare_here
):
    for word in [
        "--workers=0",
        "--cases_per_shard=0",
        "--test_fraction=1",
        "--test_fraction=nan",
        "--validation_fraction=-0.1",
        "--blur_mm=-1",
        "--blur_mm=nan",
        "--seed=-1",
    ]:
        line = one_error_line(prepare_here(*words, word), 2)
        assert f"error: {word} must be" in line or f"error: {word}.0 must be" in line
        assert not (tmp_path / "prepared").exists()


def test_an_unknown_flag_or_word_is_a_bad_argument(
    tmp_path, scans, words, prepare_here
):
    for word, said in [
        ("--nonsense", "unknown flag --nonsense"),
        ("--source=dicom", "--source=dicom: must be one of amos, btcv"),
        ("--workers=two", "--workers=two: must be a whole number"),
        ("--spacing_mm=2,2", "--spacing_mm=2,2: must be one or three numbers"),
        ("--spacing_mm=0", "--spacing_mm=0: must be one or three numbers"),
        ("--spacing_mm=nan", "--spacing_mm=nan: must be one or three numbers"),
        ("--spacing_mm=two", "--spacing_mm=two: must be one or three numbers"),
        ("--spacing_mm=", "--spacing_mm=: must be one or three numbers"),
    ]:
        outcome = prepare_here(*words, word)
        assert outcome.status == 2
        assert said in outcome.err.splitlines()[-1]
        assert not (tmp_path / "prepared").exists()


def test_a_real_process_ends_with_the_status_of_a_bad_argument(words, run_program):
    process = run_program("data_prep.prepare", *words, "--nonsense")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err
