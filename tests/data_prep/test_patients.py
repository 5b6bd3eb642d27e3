"""Who is whose scan: tables, patterns, PatientID; equal scans; a user's own splits."""

import json
from itertools import product

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadArguments, BadData
from data_prep.patients import find_patients, patient_digest
from data_prep.splits import make_splits

PARTS = ("train", "validation", "test")
NAMES = [f"pat{p:02}_{phase}" for p, phase in product(range(6), "ab")]


def entries(*case_ids, **more):
    return [
        {"case_id": c} | {key: values[c] for key, values in more.items() if c in values}
        for c in case_ids
    ]


def parts_of(folder, units):
    """For each split and unit the set of parts that hold it."""
    splits = json.loads((folder / "splits.json").read_text())["splits"]
    for name, parts in splits.items():
        part_of = {c: part for part, ids in parts.items() for c in ids}
        for unit in units:
            yield name, unit, {part_of[c] for c in unit}


@pytest.fixture(scope="module")
def scans(tmp_path_factory, save_nifti):
    """Six patients with two scans each, of which two are one scan under two names."""
    folder = tmp_path_factory.mktemp("two_phases")
    label = np.zeros((6, 7, 8), np.uint8)
    label[1:4, 1:4, 1:4] = 1
    for seed, name in enumerate(NAMES):
        seed = 0 if name == "pat03_b" else seed  # that of pat00_a
        noise = np.random.default_rng(seed).integers(-90, 90, label.shape)
        save_nifti(folder / "images" / f"{name}.nii.gz", noise.astype(np.int16))
        save_nifti(folder / "labels" / f"{name}.nii.gz", label)
    return folder


@pytest.fixture
def prepare_scans(scans, tmp_path, prepare_here):
    words = ("--source=nifti", f"--input={scans}", "--labels=spleen=1", "--workers=1")
    return lambda *more: prepare_here(*words, f"--output={tmp_path / 'data'}", *more)


def test_a_table_or_a_pattern_keeps_the_scans_of_a_patient_together(
    prepare_scans, tmp_path
):
    table = tmp_path / "patients.csv"
    rows = [f"{name},{name[:5]}" for name in [*NAMES, "elsewhere"]]
    table.write_text("\n".join(["\ufeffcase,patient", *rows]), encoding="utf-8")
    for words in [(f"--patients={table}",), ("--patient_pattern=(pat..)_[ab]",)]:
        outcome = prepare_scans(*words)
        assert outcome.status == 0, outcome.err
        # Equal voxels join patient 3 to patient 0.
        units = [tuple(n for n in NAMES if n[:5] == f"pat{p:02}") for p in (1, 2, 4, 5)]
        units.append(("pat00_a", "pat00_b", "pat03_a", "pat03_b"))
        for name, unit, parts in parts_of(tmp_path / "data", units):
            assert len(parts) == 1, (name, unit)
        assert "patients: 5 in 12 cases" in outcome.out
        assert "pat00_a = pat03_b" in outcome.out
        said = json.loads((tmp_path / "data" / "splits.json").read_text())["patients"]
        assert said["count"] == 5 and said["equal_scans"] == [["pat00_a", "pat03_b"]]
        assert open_dataset(tmp_path / "data").split("fold_1")["test"]


def test_without_being_told_each_case_is_its_own_patient_and_equal_scans_are_found(
    prepare_scans, tmp_path
):
    outcome = prepare_scans()
    assert outcome.status == 0
    assert "each case counts as its own" in outcome.out
    assert "pat00_a = pat03_b" in outcome.out
    twins = [("pat00_a", "pat03_b")]
    for _, _, parts in parts_of(tmp_path / "data", twins):
        assert len(parts) == 1
    first = (tmp_path / "data" / "splits.json").read_bytes()
    assert prepare_scans().status == 0
    assert (tmp_path / "data" / "splits.json").read_bytes() == first
    outcome = prepare_scans("--patient_pattern=(.+)_.")
    assert outcome.status == 0 and "drawn again" in outcome.out
    assert (tmp_path / "data" / "splits.json").read_bytes() != first


def test_the_patient_id_of_dicom_tells_patients_apart(
    tmp_path, write_series, save_nifti, prepare_here
):
    affine = np.array([[-0.5, 0, 0, 30], [0, -0.75, 0, 40], [0, 0, 2.5, 50.0]])
    for seed, name in enumerate("abcdef"):
        hu = np.random.default_rng(seed).integers(-90, 90, (4, 6, 5))
        whose = {"PatientID": f"Jane Doe {seed // 2}"} if name != "f" else {}
        write_series(tmp_path / "in" / "images" / name, hu, uid=f"1.2.{seed}", **whose)
        label = np.ones((5, 6, 4), np.uint8)
        grid = np.r_[affine, [[0, 0, 0, 1]]]
        save_nifti(tmp_path / "in" / "labels" / f"{name}.nii.gz", label, grid)
    words = ("--source=nifti", f"--input={tmp_path / 'in'}", "--labels=x=1")
    outcome = prepare_here(*words, f"--output={tmp_path / 'data'}", "--workers=1")
    assert outcome.status == 0, outcome.err
    assert "patients: 4 in 6 cases: by the PatientID of DICOM; 1 cases" in outcome.out
    for name, unit, parts in parts_of(tmp_path / "data", [("a", "b"), ("c", "d")]):
        assert len(parts) == 1, (name, unit)
    written = "".join(p.read_text() for p in (tmp_path / "data").glob("*.json"))
    assert "Jane" not in written  # a digest tells patients apart


def test_an_id_that_is_none_or_the_same_everywhere_tells_nobody_apart():
    for text in ["", " ", "anonymous", "ANON", "Anonymized", "0", "000", "none", "-"]:
        assert patient_digest(text) is None, text
    for text in ["PANCREAS_0001", "ANON0001", "1", "Xaver", "0071"]:
        assert patient_digest(text) is not None, text
    assert patient_digest("a b") == patient_digest(" a  b ") != patient_digest("a c")
    same = find_patients(
        entries("a", "b", "c", patient=dict.fromkeys("abc", "x")), *_NO
    )
    assert len(same.units) == 3 and "is the same" in same.summary()[0]


_NO = (None, None)


def test_names_after_bids_say_whose_they_are_where_all_are():
    bids = ("sub-01_ses-1_ct", "sub-01_ses-2_ct", "sub-010_ct", "sub-02")
    found = find_patients(entries(*bids), *_NO)
    assert found.units == [("sub-010_ct",), bids[:2], ("sub-02",)]
    assert len(find_patients(entries(*bids, "x"), *_NO).units) == 5


def test_a_table_or_a_pattern_that_leaves_a_case_without_patient_is_refused(tmp_path):
    table = tmp_path / "p.csv"
    for text, said in [
        ("", "must name the columns case and patient"),
        ("name,who\na,1\n", "must name the columns case and patient"),
        ("case,patient\na,1\n", "names no patient of 1 of 2 cases: b"),
        ("case,patient\na,1\nb\n", "row 3 lacks a case or a patient"),
        ("case,patient\na,1\nb,2\na,2\n", "case a is of 1 and of 2"),
    ]:
        table.write_text(text)
        with pytest.raises(BadData, match=said) as caught:
            find_patients(entries("a", "b"), table, None)
        assert str(caught.value).startswith(f"{table}: ")
    table.write_text("Patient_ID,case_id\n1,a.nii.gz\n1,b b.nrrd\n2,c\n")
    assert find_patients(entries("a", "b_b", "c"), table, None).units == [
        ("a", "b_b"),
        ("c",),
    ]
    table.write_text("patient;Case;age\n1;a;70\n1; b ;71\n")
    assert find_patients(entries("a", "b"), table, None).units == [("a", "b")]
    for pattern, said in [
        ("(", "--patient_pattern=\\(: "),
        ("a", "0 groups"),
        ("(a)|(b)", "2 groups"),
        ("^(a)", "no patient in 1 of 2 cases: b"),
        ("(z*)", "no patient in 2 of 2 cases: a, b"),
    ]:
        with pytest.raises(BadArguments, match=said):
            find_patients(entries("a", "b"), None, pattern)


def test_a_case_without_patient_is_refused_before_the_work(prepare_scans, tmp_path):
    outcome = prepare_scans("--patient_pattern=(pat0[0-4])")
    assert outcome.status == 2
    assert "no patient in 2 of 12 cases: pat05_a, pat05_b" in outcome.err
    assert not (tmp_path / "data").exists()
    table = tmp_path / "gone.csv"
    assert prepare_scans(f"--patients={table}").status == 3
    both = (f"--patients={table}", "--patient_pattern=(.)")
    assert prepare_scans(*both).status == 2


def test_a_users_own_splits_are_kept_and_checked(prepare_scans, tmp_path):
    path = tmp_path / "data" / "splits.json"
    assert prepare_scans().status == 0
    content = json.loads(path.read_text())
    mine = {"train": NAMES[:7], "validation": NAMES[7:9], "test": NAMES[9:11]}
    content["splits"]["by_hand"] = mine
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    outcome = prepare_scans("--patient_pattern=(.+)_.", "--seed=3")
    assert outcome.status == 0 and path.read_bytes() == before
    assert "is your own and was kept" in outcome.out
    assert "split by_hand lacks 1 cases, which take no part: pat05_b" in outcome.out
    torn = "pat04_a (validation) and pat04_b (test)"
    assert "by_hand has 2 patients on both sides" in outcome.out
    assert torn in outcome.out
    assert open_dataset(tmp_path / "data").split("by_hand")["test"] == (
        "pat04_b",
        "pat05_a",
    )
    # A file of the user's alone, with a byte order mark; and one that does not fit.
    alone = json.dumps({"version": 1, "splits": {"mine": mine}})
    path.write_bytes(b"\xef\xbb\xbf" + alone.encode())
    assert prepare_scans().status == 0
    assert open_dataset(tmp_path / "data").splits.keys() == {"mine"}
    for wrong, said in [
        (
            mine | {"test": ["nobody"]},
            "1 cases that are not in the prepared data: nobo",
        ),
        (mine | {"test": mine["train"][:1]}, "names cases twice: pat00_a"),
        ({"train": NAMES}, "is no map with lists"),
    ]:
        path.write_text(json.dumps({"version": 1, "splits": {"mine": wrong}}))
        before = path.read_bytes()
        outcome = prepare_scans()
        assert outcome.status == 3 and said in outcome.err
        assert path.read_bytes() == before
    path.write_text('{"splits": ')
    outcome = prepare_scans()
    assert outcome.status == 3 and "splits.json: not JSON" in outcome.err
    assert path.read_text() == '{"splits": '


def test_splits_that_the_program_wrote_before_it_marked_them_are_redrawn(
    prepare_scans, tmp_path
):
    assert prepare_scans().status == 0
    path = tmp_path / "data" / "splits.json"
    for seed, test, validation in [(0, 0.2, 0.1), (5, 0.3, 0.25), (1, 0.25, 0.0)]:
        splits = make_splits(
            NAMES,
            seed=seed,
            test_fraction=test,
            validation_fraction=validation,
            folds="random",
        )
        old = {"version": 1, "seed": seed, "splits": splits}
        path.write_text(json.dumps(old, indent=1))
        outcome = prepare_scans()
        assert outcome.status == 0 and "drawn again" in outcome.out
        splits["75_25"]["test"].append(splits["75_25"]["train"].pop())
        path.write_text(json.dumps(old))
        outcome = prepare_scans()
        assert outcome.status == 0 and "is your own" in outcome.out
