"""Which files are scans, how they are named, and that nothing is passed over unsaid."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest

from attunet_jax.data.case_id import case_id_of, is_case_id
from attunet_jax.data.identity import find_scans, scan_name, unused_files
from attunet_jax.errors import BadData
from attunet_jax.predict.outputs import outputs_of


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def found_in(folder, **words):
    scans = find_scans(folder, **words).scans
    return {s.identity: s.path.relative_to(folder).as_posix() for s in scans}


def test_a_scan_is_named_by_its_path_below_the_input(write_series, tmp_path):
    touch(
        tmp_path, "a.nii.gz", "B.NII", "s1/ct.nii.gz", "s2/ct.nii.gz", "x/y/z/d.Nii.GZ"
    )
    touch(tmp_path, "1.2.3.nii.gz", "imagesTs/new_0000.nii.gz", "Gro\u0308ße 患/é.nii")
    for place in ("anna/1/thorax", "anna/1/abdomen", "ben"):
        write_series(tmp_path / place, np.zeros((2, 4, 4)))
    assert found_in(tmp_path) == {
        "1.2.3": "1.2.3.nii.gz",
        "B": "B.NII",
        "Größe 患/é": "Gro\u0308ße 患/é.nii",
        "a": "a.nii.gz",
        "anna/1/abdomen": "anna/1/abdomen",
        "anna/1/thorax": "anna/1/thorax",
        "ben": "ben",
        "imagesTs/new": "imagesTs/new_0000.nii.gz",
        "s1/ct": "s1/ct.nii.gz",
        "s2/ct": "s2/ct.nii.gz",
        "x/y/z/d": "x/y/z/d.Nii.GZ",
    }
    assert list(found_in(tmp_path / "ben")) == ["ben"]
    assert [s.identity for s in find_scans(tmp_path / "B.NII").scans] == ["B"]
    with pytest.raises(BadData, match="nowhere: no such file or folder"):
        find_scans(tmp_path / "nowhere")


def test_what_is_no_scan_is_counted_by_kind(tmp_path):
    touch(tmp_path, "a.nii.gz", "._a.nii.gz", ".DS_Store", "DICOMDIR", "notes.txt")
    touch(
        tmp_path, "b/x.zip", "b/y.tar.gz", "b/z.dcm.gz", "b/IM1.gz", "b/README", "c.mhd"
    )
    touch(tmp_path, ".git/d.nii.gz", "__MACOSX/._a.nii.gz", "s/ct.nii", "s/ct_seg.nii")
    touch(tmp_path, "labelsTr/a.nii.gz", "s/segmentations/liver.nii.gz", "out/o.nii.gz")
    touch(tmp_path, "a.nii (1).gz", "a.nii.gz (2)")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "a (1).nii.gz")
    (tmp_path / "s" / "again").symlink_to(tmp_path)
    found = find_scans(tmp_path, skip=[tmp_path / "out"])
    assert [scan.identity for scan in found.scans] == ["a", "s/ct"]
    assert found.refused == []
    kinds = {kind.partition(" (")[0]: n for kind, n in found.unused.items()}
    assert kinds == {
        "resource forks of macOS": 1,
        "hidden files": 1,
        "hidden folders": 2,
        "DICOMDIR": 1,
        ".txt files": 1,
        "packed archives": 1,
        "compressed files": 1,
        "files without ending": 1,
        ".mhd files": 1,
        "label maps by their names": 1,
        "files in folders of label maps": 1,
        "copies of scans, of the same bytes": 1,
        "copies with a broken ending": 2,
        "links to folders of the input": 1,
    }


def test_a_name_of_two_scans_is_refused_and_the_others_are_found(
    write_series, tmp_path
):
    touch(tmp_path, "a.nii", "a.nii.gz", "b/c.nii", "d.nii.gz")
    touch(tmp_path, "Ü.nii", "U\u0308.nii.gz")  # composed and decomposed
    write_series(tmp_path / "d", np.zeros((2, 4, 4)))
    found = find_scans(tmp_path)
    assert [scan.identity for scan in found.scans] == ["b/c"]
    assert len(found.refused) == 3
    for line, name in zip(found.refused, ("a.nii", "d", "U"), strict=True):
        assert line.startswith(str(tmp_path / name)) and "rename or remove one" in line


def test_the_channel_of_a_single_image_is_no_part_of_its_name(tmp_path):
    touch(tmp_path, "one/a_0000.nii.gz", "one/b_0000.nii.gz", "one/case_00000.nii.gz")
    touch(tmp_path, "counted/s_0000.nii.gz", "counted/s_0001.nii.gz")
    touch(tmp_path, "both/c.nii.gz", "both/c_0000.nii.gz")
    assert [*found_in(tmp_path)] == [
        *("both/c", "both/c_0000", "counted/s_0000", "counted/s_0001"),
        *("one/a", "one/b", "one/case_00000"),
    ]
    assert scan_name("new_0000.nii.gz") == "new" and scan_name("x.y.NII.gz") == "x.y"


def test_label_maps_are_no_scans_unless_they_are_asked_for(write_series, tmp_path):
    touch(tmp_path, "case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz")
    touch(tmp_path, "labels/mask_1.nii.gz", "maps/label0001.nii", "maps/label0002.nii")
    assert [*found_in(tmp_path)] == ["case_00000/imaging"]
    assert [*found_in(tmp_path, labels_too=True)] == [
        *("case_00000/imaging", "case_00000/segmentation"),
        *("labels/mask_1", "maps/label0001", "maps/label0002"),
    ]
    assert [*found_in(tmp_path / "labels")] == ["mask_1"]  # nothing else is there
    assert [*found_in(tmp_path / "maps")] == ["label0001", "label0002"]
    write_series(tmp_path / "maps" / "ben", np.zeros((2, 4, 4)))
    assert [*found_in(tmp_path / "maps")] == ["ben"]


def test_of_every_layout_the_scans_are_found_and_not_the_label_maps(tmp_path):
    for layout, scans, others in [
        ("phantoms", ["images/phantom_000"], ["labels/phantom_000.nii.gz"]),
        ("total", ["s0001/ct", "s0002/ct"], ["s0001/segmentations/liver.nii.gz"]),
        ("kits", ["case_00000/imaging"], ["case_00000/segmentation.nii.gz"]),
        ("btcv", ["Training/img/img0001"], ["Training/label/label0001.nii.gz"]),
        ("monai", ["imagesTr/img0001"], ["labelsTr/label0001.nii.gz"]),
        ("nnunet", ["imagesTr/a", "imagesTs/b"], ["labelsTr/a.nii.gz"]),
        ("amos", ["imagesVa/amos_0007"], ["labelsVa/amos_0007.nii.gz"]),
        ("slicer", ["anna"], ["anna.seg.nrrd", "ben.seg.nrrd"]),
    ]:
        channel = "_0000" if layout == "nnunet" else ""
        ending = ".nrrd" if layout == "slicer" else ".nii.gz"
        touch(tmp_path / layout, *(f"{s}{channel}{ending}" for s in scans), *others)
        assert [*found_in(tmp_path / layout)] == scans
        assert sum(find_scans(tmp_path / layout).unused.values()) == len(others)


def test_a_label_map_gets_the_format_of_its_scan_where_only_itk_reads_that(tmp_path):
    touch(tmp_path / "in", "a.nrrd", "b/c.MHA", "d.nii", "e.nii.gz")
    outputs = outputs_of(find_scans(tmp_path / "in"), tmp_path / "in", tmp_path / "out")
    places = [one.label_map.relative_to(tmp_path / "out") for one in outputs]
    assert [place.as_posix() for place in places] == [
        *("a.nrrd", "b/c.mha", "d.nii.gz", "e.nii.gz")
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.nii.gz", "closed/b.nii.gz")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_scans(tmp_path)
    assert [scan.identity for scan in found.scans] == ["a"]
    (line,) = found.refused
    assert line.startswith(f"{tmp_path / 'closed'}: cannot be read")


def test_files_of_no_case_are_counted(write_series, tmp_path):
    touch(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "dataset.json", "x/1.txt")
    (first, *_) = write_series(tmp_path / "images" / "c", np.zeros((2, 4, 4)))
    (stray,) = write_series(tmp_path / "x", np.zeros((1, 4, 4)))
    used = [tmp_path / "images" / "a.nii.gz", first.parent]
    assert stray.exists() and unused_files(tmp_path, used) == Counter(
        {".nii.gz files of no case": 1, ".txt files": 1, "DICOM files of no case": 1}
    )


def test_ids_of_long_names_differ_and_are_file_names():
    names = ["患" * 90 + end for end in ("", "a", "b")] + ["x" * 400]
    ids = [case_id_of(name) for name in names]
    assert len({*ids}) == 4 and all(map(is_case_id, ids))
    assert max(len(i.encode()) for i in ids) <= 200
    for wrong in ("", ".a", "a/b", "a b", "a\n", "\u0301a", None, 7):
        assert not is_case_id(wrong)
