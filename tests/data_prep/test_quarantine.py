"""Bad cases left out or fatal, kills at random moments, full disks: real ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import exit_status
from data_prep import prepare

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"
ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def half_written(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.new"), *folder.rglob(".*.part")]


@pytest.fixture
def spoiled(tmp_path, make_scans) -> tuple[str, ...]:
    """Words for five scans of which b and d are bad, one a shard."""
    scans = make_scans(tmp_path / "scans", "a", "b", "c", "d", "e")
    for name in "bd":
        (scans / "images" / f"{name}.nii.gz").write_bytes(b"no scan")
    source = ("--source=nifti", f"--input={scans}", LABELS, "--cases_per_shard=1")
    return (*source, f"--output={tmp_path / 'prepared'}")


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_the_first_bad_case_with_nothing_half_written(
    tmp_path, spoiled, prepare_here, workers
):
    outcome = prepare_here(*spoiled, "--strict", f"--workers={workers}")
    bad = tmp_path / "scans" / "images"
    assert outcome.status == 3
    last = outcome.err.splitlines()[-1]
    begins = [f"error: {bad / name}.nii.gz: content is not gzip" for name in "bd"]
    assert last.startswith(begins[0] if workers == 1 else tuple(begins))
    output = tmp_path / "prepared"
    assert not half_written(output)
    assert not (output / "manifest.json").exists()
    if workers == 1:  # what came after was not begun
        assert [p.name[6:11] for p in output.glob("*.array_record")] == ["00000"]


def test_strict_does_not_take_what_an_earlier_run_left_out(
    tmp_path, spoiled, prepare_here
):
    assert prepare_here(*spoiled, "--workers=1").status == 3
    assert open_dataset(tmp_path / "prepared").case_ids == ("a", "c", "e")
    outcome = prepare_here(*spoiled, "--workers=1", "--strict")
    assert outcome.status == 3
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'scans' / 'images' / 'b.nii.gz'}: ")


def test_of_a_shard_with_a_mended_file_only_that_case_is_prepared_again(
    tmp_path, make_scans, prepare_here
):
    scans = make_scans(tmp_path / "scans", "a", "b", "c")
    words = ("--source=nifti", f"--input={scans}", LABELS, "--workers=1")
    sound = (scans / "labels" / "b.nii.gz").read_bytes()
    (scans / "labels" / "b.nii.gz").write_bytes(sound[:-9])
    assert prepare_here(*words, f"--output={tmp_path / 'out'}").status == 3
    (scans / "labels" / "b.nii.gz").write_bytes(sound)
    # Were a or c read again, they would be found bad now: their size and time are as
    # before, their content is not.
    kept = {}
    for name in "ac":
        path = scans / "images" / f"{name}.nii.gz"
        status, kept[path] = path.stat(), path.read_bytes()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepare_here(*words, f"--output={tmp_path / 'out'}").status == 0
    assert open_dataset(tmp_path / "out").case_ids == ("a", "b", "c")
    for path, content in kept.items():
        path.write_bytes(content)
    assert prepare_here(*words, f"--output={tmp_path / 'fresh'}").status == 0
    shards = [p.read_bytes() for p in sorted(tmp_path.glob("*/*.array_record"))]
    assert len(shards) == 2 and shards[0] == shards[1]


def test_files_that_were_only_copied_or_touched_are_not_prepared_again(
    tmp_path, make_scans, prepare_here
):
    scans = make_scans(tmp_path / "scans", "a", "b")
    words = ("--source=nifti", LABELS, "--workers=1", f"--output={tmp_path / 'out'}")
    assert prepare_here(*words, f"--input={scans}").status == 0
    (shard,) = (tmp_path / "out").glob("*.array_record")
    before = shard.stat().st_mtime_ns
    for path in scans.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    shutil.copytree(scans, tmp_path / "elsewhere")
    assert prepare_here(*words, f"--input={tmp_path / 'elsewhere'}").status == 0
    assert shard.stat().st_mtime_ns == before


def test_an_error_nobody_thought_of_leaves_out_its_case_alone(
    tmp_path, make_scans, prepare_here, monkeypatch
):
    """Stands for what a library may raise: no file is known that does it."""
    scans = make_scans(tmp_path / "scans", "a", "b", "c")
    from data_prep import shard

    real = shard.prepare_case

    def prepare_case(pair, settings):
        if pair.case_id == "b":
            raise RuntimeError("a library's\nown words")
        return real(pair, settings)

    monkeypatch.setattr(shard, "prepare_case", prepare_case)
    words = ("--source=nifti", f"--input={scans}", LABELS, "--workers=1")
    outcome = prepare_here(*words, f"--output={tmp_path / 'out'}")
    assert outcome.status == 3 and "Traceback" not in outcome.err
    image = scans / "images" / "b.nii.gz"
    assert f"  b: {image}: RuntimeError: a library's own words\n" in outcome.err
    assert open_dataset(tmp_path / "out").case_ids == ("a", "c")


@pytest.fixture(scope="module")
def many(tmp_path_factory, save_nifti) -> tuple[str, ...]:
    """Words for 12 scans, a shard each, that take about a second in all."""
    scans = tmp_path_factory.mktemp("many")
    noise = np.random.default_rng(0).integers(-200, 200, (96, 96, 64))
    label = np.zeros(noise.shape, np.uint8)
    label[20:60, 30:60, 20:40] = 1
    for i in range(12):
        image = np.roll(noise, i, 0).astype(np.int16)
        save_nifti(scans / "images" / f"scan_{i:02}.nii", image)
        save_nifti(scans / "labels" / f"scan_{i:02}.nii", label)
    source = ("--source=nifti", f"--input={scans}", "--labels=spleen=1")
    return (*source, "--blur_mm=3", "--cases_per_shard=1")


def begin(words, workers: int) -> "subprocess.Popen[bytes]":
    """Starts a run and returns when it has begun to work, or has nothing to do.

    The latter where a kill came between the last shard and the manifest.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep.prepare", *words, f"--workers={workers}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    first = process.stderr.readline()
    assert first.startswith(b"prepare: memory") or process.wait(60) == 0, first
    return process


def test_kills_at_random_moments_leave_what_the_same_command_finishes(tmp_path, many):
    whole = (*many, f"--output={tmp_path / 'whole'}")
    process = begin(whole, workers=1)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 0
    lasted_s = time.monotonic() - began
    expected = files(tmp_path / "whole")
    rng = np.random.default_rng(20261124)
    output = tmp_path / "killed"
    killed = 0
    while killed < 4:
        words = (*many, f"--output={output}")
        process = begin(words, workers=2 if killed == 2 else 1)
        time.sleep(rng.uniform(0, 0.6 * lasted_s))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        found = files(output)
        for name in found.keys() & expected.keys():
            assert found[name] == expected[name], name
        if process.returncode == 0 or "manifest.json" in found:
            assert found == expected
            shutil.rmtree(output)  # all was done before the kill: start again
    process = begin((*many, f"--output={output}"), workers=1)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert files(output) == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB of its own; calling it makes it large."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place))
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")

    def enlarge() -> None:
        subprocess.run(
            ("mount", "-o", "remount,size=9m", str(place)),
            check=True,
            capture_output=True,
        )

    yield place, enlarge
    subprocess.run(("umount", str(place)), check=True, capture_output=True)


def test_a_full_disk_is_said_in_one_line_and_nothing_is_half_written(
    tmp_path, save_nifti, prepare_here, small_disk
):
    place, enlarge = small_disk
    for i in range(4):  # a shard takes some 120 kB
        noise = np.random.default_rng(i).integers(-900, 900, (48, 48, 32))
        image = noise.astype(np.int16)
        save_nifti(tmp_path / "scans" / "images" / f"{i}.nii.gz", image)
        label = (noise > 800).astype(np.uint8)
        save_nifti(tmp_path / "scans" / "labels" / f"{i}.nii.gz", label)
    words = ("--source=nifti", f"--input={tmp_path / 'scans'}", "--labels=spleen=1")
    words = (*words, "--workers=1", "--cases_per_shard=1")
    expected = prepare_here(*words, f"--output={tmp_path / 'roomy'}")
    assert expected.status == 0
    outcome = prepare_here(*words, f"--output={place / 'out'}")
    assert outcome.status == 3
    lines = [line for line in outcome.err.splitlines() if "prepare: " not in line]
    (line,) = [line for line in lines if line]
    assert line.startswith(f"error: {place / 'out'}/cases-0000")
    assert "cannot be written" in line and "No space left on device" in line
    assert not half_written(place) and not (place / "out" / "manifest.json").exists()
    kept = files(place / "out")
    assert kept.items() <= files(tmp_path / "roomy").items()
    enlarge()
    assert prepare_here(*words, f"--output={place / 'out'}").status == 0
    assert files(place / "out") == files(tmp_path / "roomy")


def test_a_disk_that_is_full_at_the_manifest_is_said_in_one_line(
    tmp_path, make_scans, capfd
):
    import resource

    scans = make_scans(tmp_path / "scans", *"abcdef")
    words = ["--source=nifti", f"--input={scans}", LABELS, "--workers=1"]
    words += [f"--output={tmp_path / 'out'}", "--cases_per_shard=1"]
    assert prepare.main(words) == 0
    expected = files(tmp_path / "out")
    size = len(expected["manifest.json"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
        status = exit_status(lambda: prepare.main(words))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 3
    (line,) = capfd.readouterr().err.splitlines()
    manifest = tmp_path / "out" / "manifest.json"
    assert line.startswith(f"error: {manifest}: cannot be written (File too large)")
    assert not half_written(tmp_path) and not manifest.exists()
    assert prepare.main(words) == 0
    assert files(tmp_path / "out") == expected


def test_shards_of_an_older_record_format_are_prepared_again(
    tmp_path, make_scans, prepare_here, monkeypatch
):
    from data_prep import shard

    scans = make_scans(tmp_path / "scans", "a")
    words = ("--source=nifti", f"--input={scans}", LABELS, "--workers=1")
    assert prepare_here(*words, f"--output={tmp_path / 'out'}").status == 0
    (path,) = (tmp_path / "out").glob("*.array_record")
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(shard, "VERSION", [1, 1000])
    assert prepare_here(*words, f"--output={tmp_path / 'out'}").status == 0
    assert path.stat().st_mtime_ns > before
