"""Label maps of another scan, run or setting are never taken for those asked for."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.identity import FoundScan
from attunet_jax.errors import BadArguments
from attunet_jax.files import sha256
from attunet_jax.predict import outputs, record
from launch import predict


@pytest.fixture(scope="module")
def cases(scan_folder, tmp_path_factory):
    """Two patients' scans of one name and one shape, as archives lay them out."""
    folder = tmp_path_factory.mktemp("cases")
    for number in (0, 1):
        place = folder / f"s000{number}" / "ct.nii.gz"
        place.parent.mkdir()
        shutil.copy(scan_folder / "images" / f"ball_{number}.nii.gz", place)
    return folder


@pytest.fixture
def run(trained, predict_here, loaded_once):
    return lambda *words: predict_here(trained[0], *words)


@pytest.fixture(scope="module")
def mapped(trained, cases, loaded_once, tmp_path_factory):
    """Label maps of both, which a test copies before it changes them."""
    output = tmp_path_factory.mktemp("mapped") / "out"
    words = (f"--workdir={trained[0]}", f"--input={cases}", f"--output={output}")
    assert predict.main(predict.FLAGS.parse(words)) == 0
    return output


@pytest.fixture
def output(mapped, tmp_path):
    return shutil.copytree(mapped, tmp_path / "out")


def voxels(path):
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def test_outputs_mirror_the_inputs_folders_and_say_what_made_them(
    mapped, cases, trained
):
    files = {p.relative_to(mapped).as_posix() for p in mapped.rglob("*.*")}
    assert files == {
        "labels.json",
        *("s0000/ct.nii.gz", "s0000/ct.json", "s0001/ct.nii.gz", "s0001/ct.json"),
    }
    assert (
        voxels(mapped / "s0000/ct.nii.gz") != voxels(mapped / "s0001/ct.nii.gz")
    ).any()
    for case in ("s0000", "s0001"):
        said = json.loads((mapped / case / "ct.json").read_text())
        assert said["scan"]["sha256"] == sha256(cases / case / "ct.nii.gz")
        assert said["sha256"] == sha256(mapped / case / "ct.nii.gz")
        assert said["run"]["workdir"] == str(trained[0]) and said["run"]["step"] in (
            6,
            12,
        )
        assert said["settings"]["average_flips"] is False
        assert said["labels"]["2"] == "pancreas" and said["software"].count(".") == 2


def test_the_same_again_is_kept(run, cases, output):
    before = {p: p.read_bytes() for p in output.rglob("*.*")}
    status, said = run(f"--input={cases}", f"--output={output}")
    assert status == 0 and said.count("is there already") == 2
    assert {p: p.read_bytes() for p in output.rglob("*.*")} == before


def test_another_scan_of_the_same_name_is_refused_and_the_others_are_done(
    run, cases, output, tmp_path
):
    shutil.rmtree(output / "s0001")
    second = tmp_path / "second"
    shutil.copytree(cases, second)
    shutil.copy(cases / "s0001" / "ct.nii.gz", second / "s0000" / "ct.nii.gz")
    before = (output / "s0000" / "ct.nii.gz").read_bytes()
    status, said = run(f"--input={second}", f"--output={output}")
    assert status == 3 and "Traceback" not in said
    assert f"is that of another scan ({cases / 's0000' / 'ct.nii.gz'})" in said
    assert "--overwrite" in said and "1 of 2 scans" in said
    assert (output / "s0000" / "ct.nii.gz").read_bytes() == before
    assert (output / "s0001" / "ct.nii.gz").exists()
    status, _ = run(f"--input={second}", f"--output={output}", "--overwrite")
    ours = [voxels(output / case / "ct.nii.gz") for case in ("s0000", "s0001")]
    assert status == 0 and (ours[0] == ours[1]).all()


def test_another_setting_step_or_run_is_refused_by_name(
    run, trained, cases, output, tmp_path, monkeypatch
):
    words = (f"--input={cases}", f"--output={output}")
    before = {p: p.read_bytes() for p in output.rglob("*.*")}
    flips = "--config.predict.average_flips=True"
    status, said = run(*words, flips)
    assert (
        status == 2 and "config.predict.average_flips (False there, True here)" in said
    )
    assert "ct.nii.gz and 1 more" in said and "--overwrite" in said
    same = "--config.predict.average_flips=False"  # said, and as it is
    assert run(*words, same)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(trained[0], other)
    assert run(f"--workdir={other}", *words)[0] == 0  # a copy is the same run
    for step in (other / "checkpoints").iterdir():
        for path in (step / "_CHECKPOINT_METADATA", step / "run" / "metadata"):
            path.write_bytes(path.read_bytes() + b" ")
    status, said = run(f"--workdir={other}", *words)
    assert status == 2 and f"made by the run {trained[0]} (step " in said
    assert {p: p.read_bytes() for p in output.rglob("*.*")} == before
    steps = sorted(int(p.name) for p in (trained[0] / "checkpoints").iterdir())
    made = json.loads((output / "s0000" / "ct.json").read_text())["run"]["step"]
    for step in set(steps) - {made}:
        status, said = run(*words, f"--config.predict.checkpoint={step}")
        assert status == 2 and f"made at step {made}, not {step}" in said
    one = (f"--input={cases / 's0000'}", f"--output={output / 's0000'}")
    assert run(*one, flips, "--overwrite")[0] == 0
    again = json.loads((output / "s0000" / "ct.json").read_text())
    assert again["settings"]["average_flips"] is True


def test_an_output_of_unknown_or_changed_content_is_refused(run, cases, output):
    (output / "s0000" / "ct.json").unlink()  # as older versions left it
    corrected = output / "s0001" / "ct.nii.gz"
    corrected.write_bytes(b"corrected by hand")
    status, said = run(f"--input={cases}", f"--output={output}")
    assert status == 3 and "nothing says what made it" in said
    assert "was changed since it was predicted" in said
    assert corrected.read_bytes() == b"corrected by hand"
    assert run(f"--input={cases}", f"--output={output}", "--overwrite")[0] == 0
    assert run(f"--input={cases}", f"--output={output}")[0] == 0


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_kill_while_a_map_is_written_leaves_what_is_made_again(
    run, cases, output, monkeypatch, moment
):
    target = output / "s0000" / "ct.nii.gz"
    before = target.read_bytes()
    target.unlink()
    write = record.write_on_grid

    def killed(*words):
        if moment == "after":
            write(*words)
        raise KeyboardInterrupt

    name = "write_record" if moment == "before" else "write_on_grid"
    monkeypatch.setattr(record, name, killed)
    with pytest.raises(KeyboardInterrupt):
        run(f"--input={cases}", f"--output={output}", "--overwrite")
    monkeypatch.undo()
    status, said = run(f"--input={cases}", f"--output={output}")
    assert status == 0, said
    made = record.read_record(target)
    assert target.read_bytes() == before and made and made["finished"]


def test_labels_are_never_changed_under_maps_of_other_labels(output, tmp_path):
    ours = (output / "labels.json").read_text()
    liver = {0: "background", 1: "liver"}
    with pytest.raises(BadArguments, match="holds label maps of other labels .*spleen"):
        outputs.write_labels(output, liver, [])
    (output / "labels.json").unlink()  # each map still says its own
    with pytest.raises(BadArguments, match="other labels"):
        outputs.write_labels(output, liver, [])
    organs = dict(enumerate(("background", "spleen", "pancreas", "kidney")))
    outputs.write_labels(output, organs, [])
    assert (output / "labels.json").read_text() == ours
    places = [output / case / "ct.nii.gz" for case in ("s0000", "s0001")]
    redone = [outputs.Output(FoundScan("ct", p, (p,)), p) for p in places]
    for one in redone:  # while one has other labels there is no labels.json
        outputs.write_labels(output, liver, redone)
        assert not (output / "labels.json").exists()
        said = record.read_record(one.label_map) or {}
        said |= {"labels": {str(value): name for value, name in liver.items()}}
        record.record_of(one.label_map).write_text(json.dumps(said))
    outputs.write_labels(output, liver, redone)
    assert json.loads((output / "labels.json").read_text())["1"] == "liver"
    outputs.write_labels(tmp_path / "new", liver, [])
    assert json.loads((tmp_path / "new" / "labels.json").read_text())["1"] == "liver"


def test_a_doubt_is_said_again_and_refused_when_it_is_asked_for(run, cases, tmp_path):
    scan = nib.Nifti1Image.from_filename(cases / "s0000" / "ct.nii.gz")
    stored = np.asarray(scan.dataobj).astype(np.int16) + 1024  # HU without the offset
    target = tmp_path / "scans" / "raw.nii.gz"
    target.parent.mkdir()
    nib.Nifti1Image(stored, scan.affine).to_filename(target)
    words = (f"--input={target.parent}", f"--output={tmp_path / 'out'}")
    first, again = run(*words), run(*words)
    assert first[0] == again[0] == 0
    (warning,) = (line for line in first[1].splitlines() if "warning" in line)
    assert warning in again[1]
    status, said = run(*words, "--strict")
    assert status == 3 and "--strict" in said


def test_one_scan_may_name_its_file_and_a_folder_may_not(run, cases, tmp_path):
    scan = cases / "s0000" / "ct.nii.gz"
    target = tmp_path / "x" / "out.nii.gz"
    assert run(f"--input={scan}", f"--output={target}")[0] == 0
    assert target.is_file() and (tmp_path / "x" / "out.json").is_file()
    status, said = run(f"--input={cases}", f"--output={tmp_path / 'y.nii.gz'}")
    assert status == 2 and "names one file" in said
    assert not (tmp_path / "y.nii.gz").exists()
    channel = tmp_path / "new_0000.nii.gz"
    os.link(scan, channel)
    assert run(f"--input={channel}", f"--output={tmp_path / 'z'}")[0] == 0
    assert (tmp_path / "z" / "new.nii.gz").is_file()


def test_a_label_map_is_never_written_over_a_scan(run, cases, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(cases, folder)
    before = (folder / "s0000" / "ct.nii.gz").read_bytes()
    status, said = run(f"--input={folder}", f"--output={folder}", "--overwrite")
    assert status == 2 and "is a scan of --input" in said
    assert (folder / "s0000" / "ct.nii.gz").read_bytes() == before
    inside = folder / "out"  # what is written below the input is no input
    assert run(f"--input={folder}", f"--output={inside}")[0] == 0
    status, said = run(f"--input={folder}", f"--output={inside}")
    assert status == 0 and said.count("is there already") == 2
    status, said = run(f"--input={folder}", f"--output={tmp_path / 'else'}")
    assert status == 0 and "2 label maps made by launch.predict" in said
