"""Layouts people really have: channel numbers, KiTS, MONAI's BTCV, a level off, ITK."""

import json
import shlex
import warnings
from pathlib import Path

import numpy as np

from attunet_jax.data.dataset import open_dataset
from data_prep.sources import SOURCES, find_cases
from data_prep.wording import grouped, listed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
    import SimpleITK as sitk


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def noise(like: np.ndarray) -> np.ndarray:
    """HU that could be a scan's, on the grid of a label map."""
    hu = np.random.default_rng(0).integers(-1000, 300, like.shape)
    return hu.astype(np.int16)


def found(source: str, folder: Path) -> list[tuple[str, str, str]]:
    layout = find_cases(source, folder)
    assert all(pair.unclear is None for pair in layout.pairs)
    return [
        (pair.case_id, str(pair.image), str(pair.label))
        for pair in layout.pairs
        if pair.image and pair.label
    ]


def test_images_with_a_channel_number_belong_to_labels_without(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    touch(images, "a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz", "d_0000.nii.gz")
    touch(labels, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d_0000.nii.gz")
    cases = found("nifti", tmp_path)
    assert [(image, label) for _, image, label in cases] == [
        (str(images / f"{image}.nii.gz"), str(labels / f"{label}.nii.gz"))
        for image, label in [
            ("a_0000", "a"),
            ("b_0000", "b"),
            ("c", "c"),
            ("d_0000", "d_0000"),
        ]
    ]
    assert [case_id for case_id, *_ in cases][:3] == ["a", "b", "c"]
    # A second channel is no case of its own that would pass in silence.
    touch(images, "a_0001.nii.gz")
    (alone,) = [p for p in find_cases("nifti", tmp_path).pairs if not p.labelled]
    assert alone.case_id == "a_0001"


def test_kits_folders_of_every_year_are_cases(tmp_path, save_nifti, prepare_here):
    for root in ("", "data", "dataset"):
        folder = tmp_path / f"kits{root}"
        for case in ("case_00000", "case_00001"):
            touch(folder / root / case, "imaging.nii.gz", "segmentation.nii.gz")
        touch(
            folder / root / "case_00002", "imaging.nii.gz", "aggregated_MAJ_seg.nii.gz"
        )
        touch(folder / root / "case_00002" / "segmentations", "kidney_1.nii.gz")
        touch(folder / root / "case_00210", "imaging.nii.gz")
        layout = find_cases("kits", folder)
        assert [p.case_id for p in layout.pairs] == [f"case_0000{n}" for n in range(3)]
        assert layout.pairs[2].label == (
            folder / root / "case_00002" / "aggregated_MAJ_seg.nii.gz"
        )
        assert [p.case_id for p in layout.unlabelled] == ["case_00210"]
    label = np.zeros((8, 9, 10), np.uint8)
    label[1:4, 1:4, 1:4], label[4, 4, 4:6], label[6, 6, 6] = 1, 2, 3
    place = tmp_path / "real" / "case_00007"
    save_nifti(place / "imaging.nii.gz", noise(label))
    save_nifti(place / "segmentation.nii.gz", label)
    words = ("--source=kits", f"--input={tmp_path / 'real'}", "--workers=1")
    for flags, voxels in [
        ((), {"kidney": 30}),
        (("--labels=kidney=1,tumour=2",), {"kidney": 27, "tumour": 2}),
    ]:
        out = tmp_path / f"out{len(flags)}"
        outcome = prepare_here(*words, *flags, f"--output={out}")
        assert outcome.status == 0, outcome.err
        (case,) = json.loads((out / "manifest.json").read_text())["cases"]
        assert case["voxels"] == voxels


def test_btcv_as_monais_tutorials_have_it(tmp_path):
    touch(tmp_path / "imagesTr", "img0001.nii.gz", "img0002.nii.gz", "img0061.nii.gz")
    touch(tmp_path / "labelsTr", "label0001.nii.gz", "label0002.nii.gz")
    touch(tmp_path / "imagesTs", "img0070.nii.gz")
    (tmp_path / "dataset_0.json").write_text("{}")
    assert found("btcv", tmp_path) == [
        (
            f"img000{n}",
            str(tmp_path / "imagesTr" / f"img000{n}.nii.gz"),
            str(tmp_path / "labelsTr" / f"label000{n}.nii.gz"),
        )
        for n in (1, 2)
    ]
    assert [p.case_id for p in find_cases("btcv", tmp_path).unlabelled] == ["img0070"]


def test_a_folder_one_level_off_is_answered_with_the_right_one(
    tmp_path, prepare_here, monkeypatch
):
    touch(tmp_path / "nifti" / "images", "a.nii.gz")
    touch(tmp_path / "nifti" / "labels", "a.nii.gz")
    touch(tmp_path / "raw" / "Dataset007" / "imagesTr")
    touch(tmp_path / "raw" / "Dataset007", "dataset.json")
    touch(tmp_path / "total" / "s0001", "ct.nii.gz")
    touch(tmp_path / "kits" / "case_00001", "imaging.nii.gz")
    for source, given, right in [
        ("nifti", "nifti/images", "folder above: --input=nifti"),
        ("nifti", "nifti/labels", "folder above: --input=nifti"),
        ("nifti", ".", "folder in it: --input=nifti"),
        ("nnunet", "raw", "folder in it: --input=raw/Dataset007"),
        ("nnunet", "raw/Dataset007/imagesTr", "folder above: --input=raw/Dataset007"),
        ("msd", "raw/Dataset007/imagesTr", "folder above: --input=raw/Dataset007"),
        ("totalsegmentator", "total/s0001", "folder above: --input=total"),
        ("kits", "kits/case_00001", "folder above: --input=kits"),
    ]:
        monkeypatch.chdir(tmp_path)
        words = (f"--source={source}", f"--input={given}", "--output=out")
        outcome = prepare_here(*words, "--labels=x=1")
        assert outcome.status == 3, source
        assert outcome.err.startswith(f"error: {given}: has no "), outcome.err
        assert outcome.err.rstrip().endswith(f"; give the {right}"), outcome.err
    touch(tmp_path / "raw" / "Dataset008", "dataset.json")
    outcome = prepare_here("--source=nnunet", "--input=raw", "--output=out")
    assert "give one of its folders: Dataset007, Dataset008" in outcome.err
    for source in SOURCES:
        outcome = prepare_here(f"--source={source}", "--input=gone", "--output=out")
        assert outcome.status == 3 and "gone" in outcome.err, source


def test_scans_and_label_maps_of_itks_formats_are_prepared(tmp_path, prepare_here):
    """The same case as NIfTI, NRRD, MetaImage and as 3D Slicer cuts its segments."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 300, (9, 8, 7)).astype(np.int16)
    label = np.zeros((9, 8, 7), np.uint8)
    label[2:5, 3:6, 1:4] = 1
    image, labels = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(label)
    for one in (image, labels):
        one.SetSpacing((0.8, 0.8, 2.0))
        one.SetOrigin((-20.0, 35.5, 100.0))
    cut = labels[1:5, 2:7, 2:6]
    cut.SetMetaData("Segment0_Name", "Spleen")
    cut.SetMetaData("Segment0_LabelValue", "1")
    for name, ending, of_labels, label_image in [
        ("a", ".nii.gz", ".nii.gz", labels),
        ("b", ".nrrd", ".nrrd", labels),
        ("c", ".mha", ".mha", labels),
        ("d", ".nrrd", ".seg.nrrd", cut),
    ]:
        for kind, one, end in [
            ("images", image, ending),
            ("labels", label_image, of_labels),
        ]:
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(one, str(tmp_path / "in" / kind / f"{name}{end}"))
    words = ("--source=nifti", f"--input={tmp_path / 'in'}", "--workers=1")
    outcome = prepare_here(*words, f"--output={tmp_path / 'out'}", "--labels=spleen=1")
    assert outcome.status == 0, outcome.err
    assert "a = b = c = d" in outcome.out  # one scan under four names
    data = open_dataset(tmp_path / "out")
    first = data.case("a")
    for name in "bcd":
        case = data.case(name)
        np.testing.assert_array_equal(case.image_hu, first.image_hu)
        np.testing.assert_array_equal(case.label, first.label)
        np.testing.assert_allclose(case.affine, first.affine, atol=1e-4)
    # A segment whose name and value contradict --labels is no silent mistake.
    other = ("--labels=liver=1,spleen=2", f"--output={tmp_path / 'other'}")
    outcome = prepare_here(*words, *other)
    assert outcome.status == 3
    assert "segment 'Spleen' has label value 1, --labels says spleen=2" in outcome.err


def test_equal_reasons_are_told_once_with_the_cases_they_are_of(
    tmp_path, save_nifti, prepare_here
):
    for number in range(8):
        label = np.zeros((8, 9, 10), np.uint8)
        label[1:4, 1:4, 1 : 4 + number % 3] = 1
        label.reshape(-1)[: 60 + number] = np.arange(60 + number)  # many values
        save_nifti(tmp_path / "in/images" / f"s{number}.nii.gz", noise(label))
        save_nifti(tmp_path / "in/labels" / f"s{number}.nii.gz", label)
    save_nifti(tmp_path / "in/labels" / "lonely.nii.gz", label)
    words = ("--source=nifti", f"--input={tmp_path / 'in'}", "--labels=x=200")
    outcome = prepare_here(*words, f"--output={tmp_path / 'out'}", "--workers=1")
    assert outcome.status == 3
    (line,) = [line for line in outcome.err.splitlines() if "8 cases" in line]
    assert "(s0, s1, s2, s3, s4 and 3 more)" in line and "and 54 more; name" in line
    assert "lonely: " in outcome.err
    assert outcome.err.count("--ignore_unknown_labels") <= 2
    rejected = json.loads((tmp_path / "out" / "rejected.json").read_text())
    assert len(rejected["rejected"]) == 9


def test_reasons_that_differ_in_more_than_numbers_stay_apart():
    assert (
        listed(["a", "b"]) == "a, b"
        and listed([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    )
    rows = [
        {"case_id": "a1", "reason": "in/a1.nii: 3 voxels are NaN"},
        {"case_id": "b2", "reason": "in/b2.nii: 44 voxels are NaN"},
        {"case_id": "c", "reason": "in/c.nii: corners lie up to 3.5 mm apart"},
        {"case_id": "d", "reason": "in/d.nii: truncated"},
    ]
    lines = grouped(rows)
    assert len(lines) == 3
    assert lines[0] == "2 cases (a1, b2), the first: in/a1.nii: 3 voxels are NaN"
    assert lines[1:] == [f"{r['case_id']}: {r['reason']}" for r in rows[2:]]


def test_the_last_line_of_prepare_trains_on_the_folder_as_it_is(
    tmp_path, scan_folder, prepare_here
):
    """A data set of other organs, in a place with spaces, of another test share."""
    from attunet_jax.train.setup import setup
    from launch import train

    data = tmp_path / "my data"
    words = (
        "--source=nifti",
        f"--input={scan_folder}",
        "--spacing_mm=8",
        "--workers=1",
    )
    for flags in [
        ("--labels=liver=1,lung=2", "--test_fraction=0.3"),
        ("--labels=liver=1",),
    ]:
        flags = (*flags, "--ignore_unknown_labels", f"--output={data / flags[0]}")
        outcome = prepare_here(*words, *flags)
        assert outcome.status == 0, outcome.err
        last = outcome.out.splitlines()[-1]
        assert last.startswith("next: python -m launch.train ")
        values = train.FLAGS.parse(shlex.split(last)[4:])
        values.config.data.directory = str(values.data)
        values.config.mesh.data = 1
        run = setup(values.config)
        organs = json.loads((Path(values.data) / "manifest.json").read_text())["organs"]
        assert run.experiment.run["outputs"] == ["background", *organs]
        assert run.config.classes == ("background", *organs)
        assert run.experiment.train_ids
