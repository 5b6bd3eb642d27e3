"""The program on folders of scans: its table, JSON, page and exit status."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import cut, load, save

from attunet_jax.errors import BadData, exit_status
from attunet_jax.workers import run_in_processes
from data_prep import verify
from data_prep.sources.layout import ScanPair
from data_prep.verification.examine import Settings, examine
from data_prep.verification.page import page

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"
SHAPE = (8, 9, 10)  # of the scans of make_scans, 2 mm each way


@pytest.fixture
def scans(tmp_path, make_scans, save_nifti) -> Path:
    """a, b and c as they should be: air around the organs, all of their own."""
    folder = make_scans(tmp_path / "scans", *"abc")
    for seed, name in enumerate("abc"):
        label, _ = load(folder / "labels" / f"{name}.nii.gz")
        noise = np.random.default_rng(seed).integers(0, 60, SHAPE)
        hu = np.where(label > 0, 40 + noise, -1000 + noise).astype(np.int16)
        label[6, 6, 2] = seed % 3 + 1
        save_nifti(folder / "images" / f"{name}.nii.gz", hu)
        save_nifti(folder / "labels" / f"{name}.nii.gz", label)
    return folder


@pytest.fixture
def words(tmp_path) -> list[str]:
    return [
        "--source=nifti",
        f"--input={tmp_path / 'scans'}",
        f"--output={tmp_path / 'look'}",
        LABELS,
        "--workers=1",
    ]


@pytest.fixture
def look(capfd):
    """(exit status, stdout, stderr without the bar) of the program run here."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = exit_status(lambda: verify.main([*map(str, words)]))
        out, err = capfd.readouterr()
        lines = err.replace("\r", "\n").splitlines(keepends=True)
        return (
            status,
            out,
            "".join(s for s in lines if s.strip() and s[:8] != "verify: "),
        )

    return run


def halves(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz"


def report(folder: Path) -> dict:
    return json.loads((folder / "verify.json").read_text(encoding="utf-8"))


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kinds(case: dict) -> dict[str, str]:
    return {row["kind"]: row["severity"] for row in case["problems"]}


def test_good_scans_are_usable_and_nothing_of_them_is_changed(
    tmp_path, scans, words, look
):
    before = checksums(scans)
    status, out, err = look(*words)
    assert (status, err) == (0, "")
    assert checksums(scans) == before
    assert sorted(p.name for p in (tmp_path / "look").iterdir()) == [
        "verify.html",
        "verify.json",
    ]
    found = report(tmp_path / "look")
    assert found["cases_in_all"] == found["cases_usable"] == 3
    assert [case["case_id"] for case in found["cases"]] == ["a", "b", "c"]
    first = found["cases"][0]
    assert first["problems"] == [] and first["usable"]
    assert first["shape"] == [10, 9, 8] and first["spacing_mm"] == [2, 2, 2]
    assert first["orientation"] == "LPS"
    # 27 voxels of 8 cubic mm and the one added; 18; 12.
    assert {o: (r["voxels"], r["ml"]) for o, r in first["organs"].items()} == {
        "spleen": (28, 0.224),
        "pancreas": (18, 0.144),
        "kidney": (12, 0.096),
    }
    assert first["geometry"] == {
        "max_corner_distance_mm": 0,
        "difference": None,
        "suggested_fix": None,
    }


def test_the_table_is_plain_text_of_100_columns(scans, words, look):
    for half in ("images", "labels"):
        path = scans / half / "c.nii.gz"
        path.rename(path.with_name(f"{'long_name_of_a_hospital_' * 4}c.nii.gz"))
    _, out, _ = look(*words)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100 and out.isascii()
    assert (
        lines[0].split()
        == ("case D x H x W spacing mm axes HU spleen pancreas kidney state").split()
    )
    assert lines[1].split()[:4] == ["a", "10x9x8", "2x2x2", "LPS"]
    assert lines[1].split()[-4:] == ["0.224", "0.144", "0.096", "ok"]
    assert re.fullmatch(r"long_name\S*\.\.\S*_c +10x9x8 .*ok", lines[3])


def test_many_organs_are_counted_in_one_column(scans, words, look):
    names = ",".join(f"organ_number_{i}={i}" for i in range(1, 15))
    _, out, _ = look(*words, f"--labels={names}")
    assert out.splitlines()[1].split()[-5:-2] == ["3", "of", "14"]


def test_what_prepare_takes_is_a_warning(tmp_path, scans, words, look, prepare_here):
    image, label = halves(scans, "b")
    voxels, affine = load(label)
    voxels[voxels == 2] = 0
    voxels[0, 0, 0] = 3
    save(label, voxels, affine)
    voxels, affine = load(image)
    save(image, np.clip(voxels, 0, 255), affine)
    shutil.copy(scans / "images" / "a.nii.gz", scans / "images" / "c.nii.gz")
    status, out, err = look(*words)
    assert (status, err) == (0, "")
    a, b, c = report(tmp_path / "look")["cases"]
    assert kinds(a) == kinds(c) == {"duplicate_scan": "warning"}
    assert kinds(b) == dict.fromkeys(
        ("range_255", "organ_missing", "touches_border"), "warning"
    )
    assert "  organ missing: 1 (b)\n" in out
    assert "  same scan in several cases: 2 (a, c)\n" in out
    prepared = [w for w in words if not w.startswith("--output")]
    assert prepare_here(*prepared, f"--output={tmp_path / 'prepared'}").status == 0
    assert look(*words, "--strict")[0] == 3
    a, b, c = report(tmp_path / "look")["cases"]
    assert (a["usable"], b["usable"], c["usable"]) == (True, False, True)


def test_errors_and_warnings_of_one_case_are_told_apart(tmp_path, scans, words, look):
    image, label = halves(scans, "b")
    save(image, np.clip(load(image)[0], 0, 255))
    voxels, affine = load(label)
    voxels[voxels == 2] = 9
    save(label, voxels, affine)
    status, out, _ = look(*words)
    found = report(tmp_path / "look")
    assert status == 3 and found["cases_usable"] == 2
    (b,) = [case for case in found["cases"] if not case["usable"]]
    assert [row["kind"] for row in b["problems"]] == [
        *("unnamed_labels", "range_255", "organ_missing")
    ]
    row = out.splitlines()[2].split()
    assert row[0] == "b" and row[-3] == "absent" and row[-1] == "UNUSABLE"
    _, _, warned = out.partition("warnings, by number of cases:\n")
    assert warned.splitlines()[:-1] == [
        "  values from 0 to 255, as in a picture: 1 (b)",
        "  organ missing: 1 (b)",
    ]
    html = (tmp_path / "look" / "verify.html").read_text("utf-8")
    lines = re.findall(r"<tr class=(\w+)><td><span class=tag>\w+</span> ([^<]+)<", html)
    assert lines == [
        ("error", "label values without a name"),
        ("warning", "values from 0 to 255, as in a picture"),
        ("warning", "organ missing"),
    ]


def test_label_values_without_a_name_are_outlined_unless_they_are_ignored(scans):
    image, label = halves(scans, "b")
    voxels, affine = load(label)
    voxels[voxels == 2] = 9
    save(label, voxels, affine)
    colours = []
    for ignored in (False, True):
        settings = Settings({"spleen": (1,)}, (2.0, 2.0, 2.0), ignored)
        _, (picture, *_) = examine(ScanPair("b", image, label), settings)
        at = picture.png.index(b"PLTE")
        colours.append(int.from_bytes(picture.png[at - 4 : at], "big") // 3)
    assert colours[0] == colours[1] + 1


def test_empty_label_maps_are_no_duplicates(tmp_path, scans, words, look):
    for name in "ab":
        save(halves(scans, name)[1], np.zeros(SHAPE, np.uint8))
    assert look(*words)[0] == 0
    a, b, _ = report(tmp_path / "look")["cases"]
    assert kinds(a) == kinds(b) == {"empty_label": "warning"}


def test_the_title_of_the_page_is_text():
    assert "<i>" not in page([], [], {}, "<i>scans")


def test_a_spacing_that_prepare_would_drown_in_is_an_error(
    tmp_path, scans, words, look, save_nifti
):
    for half in halves(scans, "b"):
        voxels, _ = load(half)
        save_nifti(half, voxels, np.diag([-90.0, -90, 90, 1]))
    # 800, 900 and 1000 voxels times 9: 5.2e8 at 1 mm, 5.2e11 at 0.1 mm.
    look(*words, "--spacing_mm=1")
    assert "too_large" not in kinds(report(tmp_path / "look")["cases"][1])
    status, _, err = look(*words, "--spacing_mm=0.1")
    assert status == 3 and "is its spacing of 90 x 90 x 90 mm right?" in err


def test_a_mirrored_label_map_is_told(tmp_path, words, look, save_nifti):
    organ = np.zeros((40, 30, 20), np.uint8)
    organ[4:16, 5:14, 3:9] = 1
    for name, axis in (("a", None), ("b", 0), ("c", 2)):
        hu = np.where(organ, 60, -1000).astype(np.int16)
        hu[0, 0, 0] = -1000 - ord(name)
        label = organ if axis is None else np.flip(organ, axis)
        save_nifti(tmp_path / "scans" / "images" / f"{name}.nii.gz", hu)
        save_nifti(tmp_path / "scans" / "labels" / f"{name}.nii.gz", label)
    assert look(*words, "--labels=spleen=1")[0] == 0
    a, b, c = report(tmp_path / "look")["cases"]
    assert "mirrored" not in kinds(a)
    assert kinds(b)["mirrored"] == kinds(c)["mirrored"] == "warning"
    assert (a["mirrored"], b["mirrored"], c["mirrored"]) == ([], ["W"], ["D"])


def test_without_labels_each_value_is_shown_by_itself(tmp_path, scans, words, look):
    status, out, _ = look(*(word for word in words if word != LABELS))
    assert status == 0
    assert "labels have no names yet: give --labels=" in out
    found = report(tmp_path / "look")
    assert found["organs"] == {"label_1": [1], "label_2": [2], "label_3": [3]}
    assert found["cases"][0]["organs"]["label_2"]["voxels"] == 18


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_needs_nothing_else_and_links_every_case(tmp_path, scans, words, look):
    cut(halves(scans, "b")[0], 99)
    look(*words)
    page = Page(tmp_path / "look" / "verify.html")
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe"} == set()
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 6  # three of a, three of c
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    targets = {section["id"] for section in page.all("section")}
    assert targets == {"case-a", "case-b", "case-c"}
    assert {link["href"].removeprefix("#") for link in page.all("a")} == targets
    assert "1 of 3 cases cannot be used." in page.text
    assert "b.nii.gz: truncated" in page.text


@pytest.mark.parametrize("name", ["<img src=x> & \"q\" 's'", "\x1b[31mred", "Jürg Öz"])
def test_names_of_files_are_text_on_the_page(tmp_path, scans, words, look, name):
    for half in halves(scans, "b"):
        half.rename(half.with_name(f"{name}.nii.gz"))
    half.write_bytes(b"no scan")  # so that its path is in a message as well
    _, out, err = look(*words)
    assert "\x1b" not in out + err
    page = Page(tmp_path / "look" / "verify.html")
    assert len(page.all("img")) == 9 and all("src" in i for i in page.all("img"))
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert f"{name}.nii.gz" in page.text


def test_a_name_that_is_no_text_is_escaped(tmp_path, scans, words, look):
    image, label = halves(scans, "b")
    image.rename(image.parent / "b\udcff.nii.gz")
    label.rename(label.parent / "b\udcff.nii.gz")
    assert look(*words)[0] == 0
    assert b"b\\udcff.nii.gz" in (tmp_path / "look" / "verify.html").read_bytes()
    assert report(tmp_path / "look")["cases_in_all"] == 3


def test_the_result_does_not_depend_on_the_number_of_workers(
    tmp_path, scans, words, look
):
    _, label = halves(scans, "b")
    voxels, affine = load(label)
    voxels[0, 0, :5] = 9
    save(label, voxels, affine)
    first = look(*words)
    content = checksums(tmp_path / "look")
    assert look(*words, "--workers=2") == first
    assert checksums(tmp_path / "look") == content


def test_nothing_is_written_into_the_input(tmp_path, scans, words, look):
    for output in ["", "below/there"]:
        before = checksums(scans)
        status, _, err = look(*words, f"--output={scans / output}")
        assert status == 2 and "which is only read: name another folder" in err
        assert checksums(scans) == before and not (scans / "below").exists()


def test_a_way_into_the_input_by_a_link_is_seen(tmp_path, scans, words, look):
    (tmp_path / "link").symlink_to(scans)
    assert look(*words, f"--output={tmp_path / 'link' / 'look'}")[0] == 2
    assert not (scans / "look").exists()


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    tmp_path, scans, words, look
):
    (tmp_path / "file").write_text("mine")
    status, out, err = look(*words, f"--output={tmp_path / 'file'}")
    assert (status, out) == (3, "")
    assert err.startswith(f"error: {tmp_path / 'file'}: cannot be written")


def test_a_word_that_means_nothing_is_a_bad_argument(tmp_path, scans, words, look):
    for word, said in [
        ("--workers=0", "--workers=0 must be 1 or more"),
        ("--labels=spleen", "--labels: 'spleen' is not NAME=VALUE"),
        ("--spacing_mm=0", "--spacing_mm=0: must be one or three numbers"),
        ("--nonsense", "--nonsense"),
    ]:
        status, _, err = look(*words, word)
        assert status == 2 and err.count("\n") == 1 and said in err
        assert not (tmp_path / "look").exists()


def test_an_empty_folder_is_named(tmp_path, words, look):
    for name in ("images", "labels"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    status, _, err = look(*words)
    assert status == 3 and f"{tmp_path / 'scans'}: no scans found" in err


def test_a_scan_without_labels_by_design_is_usable(scans):
    pair = ScanPair("a", scans / "images" / "a.nii.gz", None)
    settings = Settings({"spleen": (1,)}, (2.0, 2.0, 2.0), False)
    report, pictures = examine(pair, settings, unlabelled=True)
    assert report["usable"] and report["problems"] == [] and len(pictures) == 3
    assert not examine(pair, settings)[0]["usable"]


def test_a_stopped_run_says_so_and_leaves_no_half_report(
    tmp_path, make_scans, words, run_program
):
    make_scans(tmp_path / "scans", "first")
    for half in halves(tmp_path / "scans", "first"):
        for i in range(300):
            (half.parent / f"s{i:03d}.nii.gz").hardlink_to(half)
    process = run_program("data_prep.verify", *words)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "look").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 75, err
    last = err.replace("\r", "\n").splitlines()[-1]
    assert "SIGTERM" in last and last.endswith("examines all cases again")
    assert [*(tmp_path / "look").iterdir()] == []


def test_after_a_killed_worker_verify_does_not_promise_to_go_on(tmp_path):
    again = "examines all cases again"
    with pytest.raises(BadData, match=f"fewer --workers {again}$"):
        run_in_processes(os._exit, [(9,)], 1, tmp_path, print, again)


def test_a_real_label_map_is_measured_and_not_called_mirrored(tmp_path, shared, look):
    for half, name in (("images", ""), ("labels", "_labels")):
        (tmp_path / "scans" / half).mkdir(parents=True)
        shutil.copy(
            shared / "data" / "ct" / f"totalsegmentator_example{name}.nii.gz",
            tmp_path / "scans" / half / "example.nii.gz",
        )
    status, _, _ = look(
        "--source=nifti",
        f"--input={tmp_path / 'scans'}",
        f"--output={tmp_path / 'look'}",
        "--labels=spleen=1,pancreas=7,kidney=2+3",
        "--ignore_unknown_labels",
        "--workers=1",
    )
    (case,) = report(tmp_path / "look")["cases"]
    assert status == 0 and case["mirrored"] == []
    assert case["orientation"] == "RAS" and case["file_shape"] == [122, 101, 112]
    assert case["hu"]["min"] == -1207 and case["hu"]["max"] == 3382
    assert kinds(case) == {"touches_border": "warning"}
    assert case["organs"]["spleen"]["touches"] == ["head"]
    # 7134 and 5090 voxels of 27 cubic mm, counted with nibabel.
    assert case["organs"]["kidney"]["ml"] == pytest.approx(330.048, abs=0.002)
