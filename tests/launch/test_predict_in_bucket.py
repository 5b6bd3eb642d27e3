"""Label maps written into buckets, against real servers on loopback."""

import json
import shutil
import signal

import pytest

from attunet_jax.errors import Interrupted, exit_status
from attunet_jax.storage import transfer
from launch import predict


@pytest.fixture(scope="module")
def scans(scan_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number in (0, 1, 2):
        place = folder / f"s{number}" / "ct.nii.gz"
        place.parent.mkdir()
        shutil.copy(scan_folder / "images" / f"ball_{number}.nii.gz", place)
    return folder


@pytest.fixture
def run(gated, predict_here, loaded_once, monkeypatch):
    monkeypatch.setattr(transfer, "WAIT_S", 0.01)
    return lambda *words: predict_here(gated, *words)


@pytest.fixture(scope="module")
def here(gated, scans, loaded_once, tmp_path_factory):
    """What a local run writes: name -> bytes."""
    output = tmp_path_factory.mktemp("here") / "out"
    words = (f"--workdir={gated}", f"--input={scans}", f"--output={output}")
    assert predict.main(predict.FLAGS.parse([*words, "--attention"])) == 0
    files = [path for path in output.rglob("*") if path.is_file()]
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in files}


def test_the_bucket_has_the_bytes_of_a_local_run_and_nothing_is_made_twice(
    buckets, run, scans, here, tmp_path
):
    bucket = buckets.make()
    buckets.upload(scans, f"{bucket}/scans")
    url = f"{bucket}/scans/predicted"  # in the input: no scan the next time
    words = (f"--input={bucket}/scans", f"--output={url}", "--attention")
    status, said = run(*words, f"--cache_dir={tmp_path / '1'}")
    assert status == 0 and f"[1/3] {url}/s0/ct.nii.gz" in said
    assert "staged-" not in said
    there = buckets.contents(url)
    for name in ("s0/ct.json", "s1/ct.json", "s2/ct.json"):
        case = name.removesuffix(".json")
        path = json.loads(there[name])["scan"]["path"]
        assert path == f"{bucket}/scans/{case}.nii.gz"
        local = f"{scans}/{case}.nii.gz".encode()
        there[name] = there[name].replace(path.encode(), local)
    assert there == here

    versions = buckets.fs.find(url.partition("://")[2], detail=True)
    status, said = run(*words, f"--cache_dir={tmp_path / 'another machine'}")
    assert status == 0 and said.count("is there already") == 3, said
    assert buckets.fs.find(url.partition("://")[2], detail=True) == versions
    assert not [p for p in tmp_path.rglob("staged-*/files/**/*.nii.gz")]

    # A label map that somebody has drawn in is kept and named.
    buckets.write(f"{url}/s1/ct.nii.gz", b"drawn by hand")
    status, said = run(*words, f"--cache_dir={tmp_path / '3'}")
    assert status == 3 and f"{url}/s1/ct.nii.gz: was changed since" in said


def test_after_a_kill_finished_cases_are_not_predicted_again_elsewhere(
    gs, run, scans, here, tmp_path, monkeypatch
):
    url, write = f"{gs.make()}/out", predict.write_label_map

    def killed(label_map, *rest):
        if label_map.parent.name == "s1":
            write(label_map, *rest[:-1])  # written here, not yet sent
            raise KeyboardInterrupt
        write(label_map, *rest)

    monkeypatch.setattr(predict, "write_label_map", killed)
    words = (f"--input={scans}", f"--output={url}", "--attention")
    with pytest.raises(KeyboardInterrupt):
        run(*words, f"--cache_dir={tmp_path / '1'}")
    monkeypatch.setattr(predict, "write_label_map", write)
    assert "s0/ct.json" in gs.contents(url)
    assert not [name for name in gs.contents(url) if name.startswith("s1/")]
    # Another machine makes what is not there, this one would send what it has.
    status, said = run(*words, f"--cache_dir={tmp_path / '2'}")
    assert status == 0 and said.count("is there already") == 1
    assert gs.contents(url) == here
    status, said = run(*words, f"--cache_dir={tmp_path / '1'}")
    assert status == 0 and said.count("is there already") == 3
    assert gs.contents(url) == here


def test_a_bucket_that_goes_away_is_a_line_and_the_same_command_finishes(
    s3, run, scans, here, tmp_path, monkeypatch, capsys
):
    url, cache = f"{s3.make()}/out", f"--cache_dir={tmp_path}"
    bucket, write = url.split("/")[2], predict.write_label_map

    def gone(label_map, *rest):
        if label_map.parent.name == "s1":
            s3.fs.rm(bucket, recursive=True)
        write(label_map, *rest)

    monkeypatch.setattr(predict, "write_label_map", gone)
    words = (f"--input={scans}", f"--output={url}", "--attention", cache)
    with pytest.raises(Interrupted, match=f"{url}/s1/ct.json: there is no bucket"):
        run(*words)
    assert exit_status(lambda: run(*words)[0]) == 3  # not there, before any work
    monkeypatch.setattr(predict, "write_label_map", write)
    s3.fs.call_s3("create_bucket", Bucket=bucket)
    assert run(*words)[0] == 0
    assert s3.contents(url) == here


def test_one_label_map_may_be_named_and_made_anew(gs, run, scans, here, tmp_path):
    bucket = gs.make()
    words = (f"--input={scans}/s0/ct.nii.gz", f"--cache_dir={tmp_path}")
    gs.write(f"{bucket}/deep/other.json", b"{}")
    status, said = run(*words, f"--output={bucket}/mine.nii.gz", "--pictures")
    assert status == 0 and f"{bucket}/mine.nii.gz" in said
    there = gs.contents(bucket)
    assert there.keys() == {
        *("deep/other.json", "labels.json"),
        *("mine.nii.gz", "mine.json", "mine.png"),
    }
    assert there["mine.nii.gz"] == here["s0/ct.nii.gz"]
    gs.write(f"{bucket}/mine.nii.gz", b"changed by hand")
    flags = (f"--output={bucket}/mine.nii.gz", "--pictures")
    status, said = run(*words, *flags)
    assert status == 3 and f"{bucket}/mine.nii.gz: was changed" in said
    status, said = run(*words, *flags, "--overwrite")
    assert status == 0 and gs.contents(bucket) == there

    # A scan of the same bucket is never overwritten.
    gs.upload(scans, f"{bucket}/scans")
    into = (f"--input={bucket}/scans", f"--output={bucket}/scans")
    status, said = run(*into, f"--cache_dir={tmp_path}")
    assert status == 2 and "is a scan of --input" in said
    scan = (scans / "s0" / "ct.nii.gz").read_bytes()
    assert gs.contents(f"{bucket}/scans")["s0/ct.nii.gz"] == scan


@pytest.mark.cluster
def test_a_killed_prediction_goes_on_elsewhere(
    s3, run_program, run, gated, scans, here, tmp_path
):
    url = f"{s3.make()}/out"
    words = (f"--input={scans}", f"--output={url}", "--attention")
    process = run_program(
        "launch.predict", f"--workdir={gated}", *words, f"--cache_dir={tmp_path / '1'}"
    )
    while len(s3.fs.find(url.partition("://")[2])) < 4:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert run(*words, f"--cache_dir={tmp_path / '2'}")[0] == 0
    assert s3.contents(url) == here
