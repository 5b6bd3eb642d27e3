"""Folders with scans that cannot be used: what is said of them, and that others are."""

import gzip
import json
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"
SROW_X = 280  # byte offset in nifti1.h: three rows of the affine, four floats each


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)  # pyright: ignore
    return np.asarray(image.dataobj).copy(), image.affine  # pyright: ignore


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)  # pyright: ignore


def text_named_as_a_scan(image: Path, label: Path) -> str:
    image.write_text("patient wishes not to take part\n")
    return f"{image}: content is not gzip"


def text_named_as_a_plain_scan(image: Path, label: Path) -> str:
    image.unlink()
    plain = image.with_name(image.name.removesuffix(".gz"))
    plain.write_text("patient wishes not to take part\n" * 30)
    return f"{plain}: not a NIfTI file"


def truncated_image(image: Path, label: Path) -> str:
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return f"{image}: truncated"


def truncated_label(image: Path, label: Path) -> str:
    label.write_bytes(label.read_bytes()[:-4])
    return f"{label}: truncated"


def empty_file(image: Path, label: Path) -> str:
    image.write_bytes(b"")
    return f"{image}: content is not gzip"


def label_of_another_shape(image: Path, label: Path) -> str:
    voxels, affine = load(label)
    save(label, voxels[:-1], affine)
    return f"{label}: not on the grid of {image.name}: 10 x 9 x 8 against 10 x 9 x 7"


def label_of_another_affine(image: Path, label: Path) -> str:
    voxels, affine = load(label)
    affine[2, 3] += 3
    save(label, voxels, affine)
    return f"{label}: not on the grid of {image.name}: corners lie up to 3 mm apart"


def label_turned_left_to_right(image: Path, label: Path) -> str:
    voxels, affine = load(label)
    save(label, voxels, np.diag([-1, 1, 1, 1]) @ affine)
    return f"{label}: not on the grid of {image.name}: corners lie up to"


def unnamed_label_value(image: Path, label: Path) -> str:
    voxels, affine = load(label)
    voxels[0, 0, :5] = 9
    save(label, voxels, affine)
    return f"{label}: label values that --labels does not name: 9 (5 voxels)"


def label_map_of_fractions(image: Path, label: Path) -> str:
    voxels, affine = load(label)
    save(label, voxels.astype(np.float32) / 2, affine)
    return f"{label}: label 0.5 is not a whole number"


def voxels_that_are_nan(image: Path, label: Path) -> str:
    voxels, affine = load(image)
    voxels = voxels.astype(np.float32)
    voxels[1, 2, 3:5] = np.nan
    save(image, voxels, affine)
    return f"{image}: 2 voxels are NaN or infinite"


def affine_of_zeros(image: Path, label: Path) -> str:
    content = bytearray(gzip.decompress(image.read_bytes()))
    struct.pack_into("<12f", content, SROW_X, *[0.0] * 12)
    image.write_bytes(gzip.compress(content))
    return f"{image}: affine is all zero"


def image_of_four_dimensions(image: Path, label: Path) -> str:
    voxels, affine = load(image)
    save(image, np.stack([voxels, voxels], -1), affine)
    return f"{image}: 4-D image (8 x 9 x 10 x 2)"


def image_without_label(image: Path, label: Path) -> str:
    label.unlink()
    return f"{image}: an image without a label map of the same name"


def label_without_image(image: Path, label: Path) -> str:
    image.unlink()
    return f"{label}: a label map without an image of the same name"


def folder_named_as_a_scan(image: Path, label: Path) -> str:
    image.unlink()
    image.mkdir()
    return f"{image}: not a file"


def link_to_nowhere(image: Path, label: Path) -> str:
    label.unlink()
    label.symlink_to(label.with_name("gone"))
    return f"{label}: no such file"


# Each spoils one pair of files and returns what the reason begins with.
SPOILED = [
    text_named_as_a_scan,
    text_named_as_a_plain_scan,
    truncated_image,
    truncated_label,
    empty_file,
    label_of_another_shape,
    label_of_another_affine,
    label_turned_left_to_right,
    unnamed_label_value,
    label_map_of_fractions,
    voxels_that_are_nan,
    affine_of_zeros,
    image_of_four_dimensions,
    image_without_label,
    label_without_image,
    folder_named_as_a_scan,
    link_to_nowhere,
]


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


@pytest.fixture(scope="module")
def sound(tmp_path_factory, make_scans):
    """What `a` and `c` give where nothing is wrong with `b`."""
    from data_prep import prepare

    folder = tmp_path_factory.mktemp("sound")
    make_scans(folder / "scans", "a", "b", "c")
    words = ("--source=nifti", LABELS, "--workers=1", f"--input={folder / 'scans'}")
    assert prepare.main([*words, f"--output={folder / 'prepared'}"]) == 0
    return open_dataset(folder / "prepared")


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_bad_case_is_listed_with_its_file_and_the_others_are_prepared(
    tmp_path, scans, words, prepare_here, sound, spoil
):
    begin = spoil(*halves(scans, "b"))
    outcome = prepare_here(*words)
    assert outcome.status == 3
    report = json.loads((tmp_path / "prepared" / "rejected.json").read_text())
    (row,) = report["rejected"]
    assert row["case_id"] == "b" and row["reason"].startswith(begin)
    assert "\n" not in row["reason"]
    lines = outcome.err.splitlines()
    assert f"  b: {row['reason']}" in lines
    assert lines[-1].startswith("error: ") and "1 of 3 cases were left out" in lines[-1]
    dataset = open_dataset(tmp_path / "prepared")
    dataset.verify_checksums()
    assert dataset.case_ids == ("a", "c")
    for case_id in dataset.case_ids:
        found, expected = dataset.case(case_id), sound.case(case_id)
        np.testing.assert_array_equal(found.image_hu, expected.image_hu)
        np.testing.assert_array_equal(found.label, expected.label)
    for parts in dataset.splits.values():
        assert sorted(sum(parts.values(), ())) == ["a", "c"]


def test_many_bad_cases_in_one_folder_are_each_listed_without_a_traceback(
    tmp_path, make_scans, words, run_program
):
    names = [f"{i:02}_{spoil.__name__}" for i, spoil in enumerate(SPOILED)]
    scans = make_scans(tmp_path / "scans", *names, "sound_1", "sound_2")
    begins = {
        name: spoil(*halves(scans, name))
        for name, spoil in zip(names, SPOILED, strict=True)
    }
    # Five shards of nothing, one of two bad scans and a sound one, one of a sound one.
    more = ("--cases_per_shard=3", "--workers=2")
    process = run_program("data_prep.prepare", *words, *more)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Traceback" not in out + err and "Warning" not in err
    report = json.loads((tmp_path / "prepared" / "rejected.json").read_text())
    assert [row["case_id"] for row in report["rejected"]] == names
    for row in report["rejected"]:
        assert row["reason"].startswith(begins[row["case_id"]])
        assert f"\n  {row['case_id']}: {row['reason']}\n" in err
    dataset = open_dataset(tmp_path / "prepared")
    assert dataset.case_ids == ("sound_1", "sound_2")
    counts = [shard["records"] for shard in dataset.manifest["shards"]]
    assert counts == [0, 0, 0, 0, 0, 1, 1]


def test_unnamed_label_values_can_be_counted_as_background(
    tmp_path, scans, words, prepare_here
):
    unnamed_label_value(*halves(scans, "b"))
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
    truncated_image(image, label)
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


def test_where_no_case_can_be_used_no_manifest_is_left(
    tmp_path, scans, words, prepare_here
):
    assert prepare_here(*words).status == 0
    assert (tmp_path / "prepared" / "manifest.json").exists()
    begins = [truncated_image(*halves(scans, name)) for name in "abc"]
    outcome = prepare_here(*words)
    assert outcome.status == 3
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and "no case could be used" in last
    assert begins[0] in last
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


@pytest.mark.parametrize("below", ["file", "file/prepared"])
def test_an_output_that_cannot_be_written_is_named(
    tmp_path, scans, words, prepare_here, below
):
    # Root may write everywhere but below a regular file.
    (tmp_path / "file").write_text("mine")
    line = one_error_line(prepare_here(*words, f"--output={tmp_path / below}"), 3)
    assert f"{tmp_path / below}: cannot be written (Not a directory)" in line
    assert "choose another --output" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ['{"organs', "[]", "", "\xff"])
def test_a_damaged_manifest_of_an_earlier_run_is_named(
    tmp_path, scans, words, prepare_here, text
):
    notes = tmp_path / "prepared" / "manifest.json"
    notes.parent.mkdir(parents=True)
    notes.write_text(text, encoding="latin-1")
    assert f"{notes}: damaged" in one_error_line(prepare_here(*words), 3)


@pytest.mark.parametrize(
    "text", ["spleen", "spleen=0", "spleen=1,spleen=2", "spleen=1;pancreas=2", "=", ","]
)
def test_labels_that_cannot_be_read_are_a_bad_argument(
    tmp_path, scans, words, prepare_here, text
):
    line = one_error_line(prepare_here(*words, f"--labels={text}"), 2)
    assert line.startswith("error: --labels: ")
    assert not (tmp_path / "prepared").exists()


def test_a_folder_that_does_not_say_what_labels_mean_needs_labels(
    tmp_path, scans, words, prepare_here
):
    bare = [word for word in words if word != LABELS]
    line = one_error_line(prepare_here(*bare), 2)
    assert "--labels=spleen=1,pancreas=2,kidney=3" in line


@pytest.mark.parametrize(
    "word",
    [
        "--workers=0",
        "--cases_per_shard=0",
        "--test_fraction=1",
        "--test_fraction=nan",
        "--validation_fraction=-0.1",
        "--blur_mm=-1",
        "--blur_mm=nan",
        "--seed=-1",
    ],
)
def test_a_number_that_means_nothing_is_named_before_anything_is_done(
    tmp_path, scans, words, prepare_here, word
):
    line = one_error_line(prepare_here(*words, word), 2)
    assert f"error: {word} must be" in line or f"error: {word}.0 must be" in line
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    "word, said",
    [
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--source=dicom", "argument --source: invalid choice: 'dicom'"),
        ("--workers=two", "argument --workers: invalid int value: 'two'"),
        ("--spacing_mm=2,2", "argument --spacing_mm: one or three numbers"),
        ("--spacing_mm=0", "argument --spacing_mm: one or three numbers"),
        ("--spacing_mm=nan", "argument --spacing_mm: one or three numbers"),
        ("--spacing_mm=two", "argument --spacing_mm: one or three numbers"),
        ("--spacing_mm=", "argument --spacing_mm: one or three numbers"),
    ],
)
def test_an_unknown_flag_or_word_is_a_bad_argument(
    tmp_path, scans, words, prepare_here, word, said
):
    outcome = prepare_here(*words, word)
    assert outcome.status == 2
    assert said in outcome.err.splitlines()[-1]
    assert not (tmp_path / "prepared").exists()


def test_a_real_process_ends_with_the_status_of_a_bad_argument(words, run_program):
    process = run_program("data_prep.prepare", *words, "--nonsense")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err
