"""Folders of scans to prepared data: what is written, and what is written again."""

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.data.dataset import open_dataset

ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3}
LABELS = "--labels=spleen=1,pancreas=2,kidney=3"
SPACING_MM = 2.0, 2.0, 2.5  # of the ten balls' files, whose axes point L, P, S


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    """What a reader of the folder sees: no hidden files, none of .parts/."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def ball(scan_folder: Path, kind: str, i: int) -> np.ndarray:
    """A ball's voxels [D, H, W]: its file's axes already point to L, P, S."""
    image = nib.load(scan_folder / kind / f"ball_{i}.nii.gz")  # pyright: ignore
    return np.asarray(image.dataobj).transpose()  # pyright: ignore


def places(shape, new_spacing_mm) -> list[np.ndarray]:
    """Where new voxels lie among the old ones, the middle of both being one point."""
    found = []
    for n, old, new in zip(shape, SPACING_MM[::-1], new_spacing_mm, strict=True):
        count = round(n * old / new)
        found.append((n - 1) / 2 + (np.arange(count) - (count - 1) / 2) * new / old)
    return found


def resampled(image: np.ndarray, new_spacing_mm) -> np.ndarray:
    grid = np.meshgrid(*places(image.shape, new_spacing_mm), indexing="ij")
    return ndimage.map_coordinates(image.astype(float), grid, order=1, mode="nearest")


def nearest(label: np.ndarray, new_spacing_mm) -> np.ndarray:
    """The later of two voxels that are equally near."""
    index = [
        np.clip(np.floor(np.round(p, 3) + 0.5).astype(int), 0, n - 1)
        for p, n in zip(places(label.shape, new_spacing_mm), label.shape, strict=True)
    ]
    return label[np.ix_(*index)]


def test_shapes_and_spacings_of_the_manifest_are_those_of_the_files(
    prepared, scan_folder
):
    manifest = manifest_of(prepared)
    assert [case["case_id"] for case in manifest["cases"]] == [
        f"ball_{i}" for i in range(10)
    ]
    for case in manifest["cases"]:
        # 30 slices of 2.5 mm are 18.75 of 4 mm, 40 and 36 of 2 mm 20 and 18.
        assert case["shape"] == [19, 20, 18]
        assert case["spacing_mm"] == [4, 4, 4]
        assert case["original_shape"] == [36, 40, 30]  # of the file's axes
        assert case["original_spacing_mm"] == [2.5, 2, 2]  # D, H, W
    assert manifest["format"] == "attunet_jax.cases" and manifest["version"] == 1
    assert manifest["organs"] == ORGANS
    assert manifest["spacing_mm"] == [4, 4, 4]
    assert manifest["settings"] == {
        "organs": {name: [value] for name, value in ORGANS.items()},
        "spacing_mm": [4, 4, 4],
        "blur_mm": 0,
        "ignore_unknown_labels": False,
        "hu_range": [-1024, 3071],
        "source": "nifti",
        "cases_per_shard": 4,
    }


def test_cases_lie_in_shards_in_their_order(prepared):
    manifest = manifest_of(prepared)
    assert [(s["file"], s["records"]) for s in manifest["shards"]] == [
        ("cases-00000-of-00003.array_record", 4),
        ("cases-00001-of-00003.array_record", 4),
        ("cases-00002-of-00003.array_record", 2),
    ]
    assert [(case["shard"], case["record"]) for case in manifest["cases"]] == [
        (i // 4, i % 4) for i in range(10)
    ]
    for shard in manifest["shards"]:
        path = prepared / shard["file"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == sha256(path)
    names = {"manifest.json", "splits.json", *(s["file"] for s in manifest["shards"])}
    assert set(files(prepared)) == names


def test_checksums_of_the_manifest_are_those_of_the_source_files(prepared, scan_folder):
    for case in manifest_of(prepared)["cases"]:
        for kind in ("image", "label"):
            path = scan_folder / f"{kind}s" / f"{case['case_id']}.nii.gz"
            assert case[kind] == {"file": path.name, "sha256": sha256(path)}


def test_voxels_are_those_that_scipy_reads_between_the_files_own(prepared, scan_folder):
    for i in [0, 9]:
        case = open_dataset(prepared).case(f"ball_{i}")
        expected = resampled(ball(scan_folder, "images", i), (4, 4, 4))
        assert (
            np.abs(case.image_hu - expected).max() <= 0.5 + 1e-3
        )  # rounded to whole HU
        label = ball(scan_folder, "labels", i)
        np.testing.assert_array_equal(case.label, nearest(label, (4, 4, 4)))


def test_hu_statistics_and_voxel_counts_are_those_that_numpy_finds(
    prepared, scan_folder
):
    for i in [0, 9]:
        entry = manifest_of(prepared)["cases"][i]
        hu = np.rint(resampled(ball(scan_folder, "images", i), (4, 4, 4)))
        # A tie between two whole HU may be rounded either way: 1 HU in some voxel.
        assert entry["hu"]["min"] == pytest.approx(hu.min(), abs=1)
        assert entry["hu"]["max"] == pytest.approx(hu.max(), abs=1)
        assert entry["hu"]["mean"] == pytest.approx(hu.mean(), abs=0.01)
        assert entry["hu"]["std"] == pytest.approx(hu.std(), abs=0.01)
        for key, percent in (("p0_5", 0.5), ("p99_5", 99.5)):
            assert entry["hu"][key] == pytest.approx(np.percentile(hu, percent), abs=1)
        counts = np.bincount(
            nearest(ball(scan_folder, "labels", i), (4, 4, 4)).ravel(), minlength=4
        )
        assert list(entry["voxels"].items()) == list(
            zip(ORGANS, counts[1:].tolist(), strict=True)
        )


def test_the_affine_of_a_case_keeps_the_scan_where_it_was(prepared):
    case = open_dataset(prepared).case("ball_0")
    # Axes D, H, W grow by 4 mm to S, P, L; the middle of the grid stays in place.
    np.testing.assert_array_equal(
        case.affine[:3, :3], [[0, 0, -4], [0, -4, 0], [4, 0, 0]]
    )
    middle = case.affine @ [9, 9.5, 8.5, 1]
    np.testing.assert_allclose(middle, [-2 * 17.5, -2 * 19.5, 2.5 * 14.5, 1], atol=1e-9)


def test_splits_hold_every_case_once(prepared):
    document = json.loads((prepared / "splits.json").read_text(encoding="utf-8"))
    assert document["version"] == 1 and document["seed"] == 0
    sizes = {"80_20": (7, 1, 2), "20_80": (2, 0, 8), "75_25": (6, 1, 3)}
    sizes |= {f"fold_{k}": (7, 1, 2) for k in range(1, 6)}
    assert set(document["splits"]) == set(sizes)
    for name, parts in document["splits"].items():
        assert tuple(len(ids) for ids in parts.values()) == sizes[name]
        assert sorted(sum(parts.values(), [])) == [f"ball_{i}" for i in range(10)]


def test_two_workers_elsewhere_write_the_same_bytes_as_one(
    prepared, scan_folder, tmp_path, run_program
):
    elsewhere = tmp_path / "copied scans"
    for kind in ("images", "labels"):
        (elsewhere / kind).mkdir(parents=True)
        for path in reversed(sorted((scan_folder / kind).iterdir())):
            shutil.copyfile(path, elsewhere / kind / path.name)
    process = run_program(
        "data_prep.prepare",
        "--source=nifti",
        f"--input={elsewhere}",
        f"--output={tmp_path / 'prepared'}",
        LABELS,
        "--spacing_mm=4",
        "--cases_per_shard=4",
        "--workers=2",
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert files(tmp_path / "prepared") == files(prepared)
    # The next command is there to be copied.
    assert f"--data={tmp_path / 'prepared'} " in out.splitlines()[-1]
    assert out.splitlines()[0] == (
        "10 cases at [4.0, 4.0, 4.0] mm, shapes [19, 20, 18] to [19, 20, 18] [D, H, W]"
    )


def test_three_spacings_are_those_of_slices_rows_and_columns(
    scan_folder, tmp_path, prepare_here
):
    words = ("--source=nifti", f"--input={scan_folder}", f"--output={tmp_path}")
    more = (LABELS, "--spacing_mm=4,3,3", "--workers=1")
    assert prepare_here(*words, *more).status == 0
    manifest = manifest_of(tmp_path)
    assert manifest["spacing_mm"] == [4, 3, 3]
    # 40 and 36 voxels of 2 mm are 26.67 and 24 of 3 mm.
    assert {tuple(case["shape"]) for case in manifest["cases"]} == {(19, 27, 24)}
    case = open_dataset(tmp_path).case("ball_3")
    assert case.spacing_mm.tolist() == [4, 3, 3]
    expected = resampled(ball(scan_folder, "images", 3), (4, 3, 3))
    assert np.abs(case.image_hu - expected).max() <= 0.5 + 1e-3
    label = ball(scan_folder, "labels", 3)
    np.testing.assert_array_equal(case.label, nearest(label, (4, 3, 3)))


def test_a_blur_is_scipys_gaussian_in_mm_before_the_voxels_are_read(
    scan_folder, tmp_path, prepare_here
):
    words = ("--source=nifti", f"--input={scan_folder}", f"--output={tmp_path}")
    more = (LABELS, "--spacing_mm=4", "--blur_mm=3", "--workers=1")
    assert prepare_here(*words, *more).status == 0
    case = open_dataset(tmp_path).case("ball_1")
    image = ball(scan_folder, "images", 1).astype(float)
    smooth = ndimage.gaussian_filter(image, (1.2, 1.5, 1.5), mode="nearest")
    expected = resampled(smooth, (4, 4, 4))
    assert np.abs(case.image_hu - expected).max() <= 0.5 + 1e-2


def test_values_joined_with_a_plus_become_one_organ(tmp_path, make_scans, prepare_here):
    scans = make_scans(tmp_path / "scans", "a")
    outcome = prepare_here(
        "--source=nifti",
        f"--input={scans}",
        f"--output={tmp_path / 'prepared'}",
        "--labels=kidney=2+3,spleen=1",
        "--workers=1",
    )
    assert outcome.status == 0
    dataset = open_dataset(tmp_path / "prepared")
    assert dataset.labels.values == {"kidney": 1, "spleen": 2}
    (entry,) = dataset.manifest["cases"]
    assert entry["voxels"] == {"kidney": 18 + 12, "spleen": 27}
    assert entry["shape"] == [10, 9, 8]  # 2 mm is the default and the files' own
    counts = np.bincount(dataset.case("a").label.ravel())
    assert counts.tolist() == [720 - 57, 30, 27]


def test_the_next_command_names_a_split_where_the_default_one_is_not_there(
    tmp_path, make_scans, prepare_here
):
    scans = make_scans(tmp_path / "scans", "a")
    words = ("--source=nifti", f"--input={scans}", "--ignore_unknown_labels")
    for flags, split in (
        (["--labels=liver=1"], []),  # classes are those of the data
        (["--labels=liver=1", "--test_fraction=0.3"], ["--config.data.split=70_30"]),
    ):
        output = tmp_path / f"for {flags}"
        outcome = prepare_here(*words, *flags, f"--output={output}")
        program, *command = shlex.split(outcome.out.splitlines()[-1])
        assert program == "next:" and command == [
            *("python", "-m", "launch.train", "--config=configs/attention_unet.py"),
            *(f"--data={output}", "--workdir=RUN", *split),
        ]


def test_an_organ_that_is_in_no_scan_is_said(tmp_path, make_scans, prepare_here):
    scans = make_scans(tmp_path / "scans", "a", "b")
    words = ("--source=nifti", f"--input={scans}", f"--output={tmp_path / 'out'}")
    labels = "--labels=spleen=1,pancreas=2,kidney=3,liver=6"
    outcome = prepare_here(*words, labels, "--workers=1")
    assert outcome.status == 0
    assert "  liver: median 0 ml, absent in 2 cases" in outcome.out.splitlines()


def test_other_settings_in_the_same_folder_are_refused_by_name(
    tmp_path, make_scans, prepare_here
):
    for field, word in [
        ("spacing_mm", "--spacing_mm=3"),
        ("blur_mm", "--blur_mm=1"),
        ("cases_per_shard", "--cases_per_shard=2"),
        ("organs", "--labels=spleen=1,pancreas=3,kidney=2"),
        ("ignore_unknown_labels", "--ignore_unknown_labels"),
    ]:
        scans = make_scans(tmp_path / "scans", "a")
        output = tmp_path / "prepared"
        words = ("--source=nifti", f"--input={scans}", f"--output={output}")
        assert prepare_here(*words, LABELS, "--workers=1").status == 0
        before = files(output)
        outcome = prepare_here(*words, LABELS, word)
        assert outcome.status == 2
        start = f"error: {output} was prepared with another {field} ("
        assert outcome.err.startswith(start) and outcome.err.count("\n") == 1
        assert "use another --output" in outcome.err
        assert files(output) == before


def test_what_came_to_nothing_does_not_bind_the_next_try(
    tmp_path, make_scans, prepare_here
):
    """Following the hint of a refusal works in the same --output."""
    scans = make_scans(tmp_path / "scans", "a")
    words = ("--source=nifti", f"--input={scans}", "--workers=1")
    output = tmp_path / "prepared"
    few = prepare_here(*words, f"--output={output}", "--labels=spleen=1")
    assert few.status == 3 and "--ignore_unknown_labels" in few.err
    mended = (*words, "--labels=spleen=1", "--ignore_unknown_labels")
    assert prepare_here(*mended, f"--output={output}").status == 0
    assert prepare_here(*mended, f"--output={tmp_path / 'fresh'}").status == 0
    shards = [p.read_bytes() for p in sorted(tmp_path.glob("*/*.array_record"))]
    assert len(shards) == 2 and shards[0] == shards[1]


def test_another_seed_draws_other_splits_and_redoes_no_shard(
    scan_folder, prepared, tmp_path, prepare_here
):
    shutil.copytree(prepared, tmp_path / "prepared")
    shards = sorted((tmp_path / "prepared").glob("*.array_record"))
    times = [path.stat().st_mtime_ns for path in shards]
    words = ("--source=nifti", f"--input={scan_folder}", "--spacing_mm=4", LABELS)
    more = (f"--output={tmp_path / 'prepared'}", "--cases_per_shard=4", "--seed=1")
    assert prepare_here(*words, *more).status == 0
    assert [path.stat().st_mtime_ns for path in shards] == times
    old, new = files(prepared), files(tmp_path / "prepared")
    assert {name for name in old if old[name] != new[name]} == {"splits.json"}
    first, second = (json.loads(x["splits.json"])["splits"] for x in (old, new))
    assert first["80_20"]["test"] != second["80_20"]["test"]


@pytest.fixture
def three(tmp_path, make_scans, prepare_here):
    """Scans a, b, c prepared one a shard; calling it prepares them again."""
    scans = make_scans(tmp_path / "scans", "a", "b", "c")
    output = tmp_path / "prepared"

    def again(status: int = 0) -> dict[str, int]:
        outcome = prepare_here(
            "--source=nifti",
            f"--input={scans}",
            f"--output={output}",
            LABELS,
            "--cases_per_shard=1",
            "--workers=1",
        )
        assert outcome.status == status
        open_dataset(output).verify_checksums()
        return {
            path.name[6:11]: path.stat().st_mtime_ns
            for path in output.glob("*.array_record")
        }

    return again


def test_shards_that_are_there_are_not_made_again(three, tmp_path):
    first = three()
    before = files(tmp_path / "prepared")
    assert three() == first
    assert files(tmp_path / "prepared") == before


def test_a_mended_file_is_prepared_again_and_nothing_else(three, tmp_path, save_nifti):
    label = tmp_path / "scans" / "labels" / "b.nii.gz"
    sound = label.read_bytes()
    label.write_bytes(sound[:-9])
    first = three(status=3)
    label.write_bytes(sound)
    second = three()
    assert {name for name in first if first[name] != second[name]} == {"00001"}
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b", "c")


def test_a_replaced_file_is_prepared_again(three, tmp_path, save_nifti):
    for kind in ["images", "labels"]:
        first = three()
        path = tmp_path / "scans" / kind / "c.nii.gz"
        if kind == "images":
            shutil.copyfile(tmp_path / "scans" / kind / "a.nii.gz", path)
        else:  # all labels are alike
            save_nifti(path, np.eye(8, 90, dtype=np.uint8).reshape(8, 9, 10))
        second = three()
        assert {name for name in first if first[name] != second[name]} == {"00002"}
        dataset = open_dataset(tmp_path / "prepared")
        entry = dataset.manifest["cases"][2]
        assert entry[kind.removesuffix("s")]["sha256"] == sha256(path)


def test_a_lost_or_damaged_shard_is_made_again(three, tmp_path):
    for damage in [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes([1]) + path.read_bytes()[1:]),
    ]:
        first = three()
        before = files(tmp_path / "prepared")
        damage(tmp_path / "prepared" / "cases-00001-of-00003.array_record")
        second = three()
        assert {name for name in first if first[name] != second[name]} == {"00001"}
        assert files(tmp_path / "prepared") == before


def test_scans_that_come_or_go_leave_no_shard_of_before(three, tmp_path, make_scans):
    three()
    make_scans(tmp_path / "more", "x", "d")
    for kind in ("images", "labels"):
        shutil.copy(tmp_path / "more" / kind / "d.nii.gz", tmp_path / "scans" / kind)
    assert set(three()) == {"00000", "00001", "00002", "00003"}
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "b", "c", "d")
    for name in "ab":
        for kind in ("images", "labels"):
            (tmp_path / "scans" / kind / f"{name}.nii.gz").unlink()
    assert set(three()) == {"00000", "00001"}
    assert open_dataset(tmp_path / "prepared").case_ids == ("c", "d")
