"""Preparation from and into buckets, against real servers on loopback."""

import signal
from pathlib import Path

from attunet_jax.storage import names

FLAGS = ("--source=nifti", "--labels=spleen=1,pancreas=2,kidney=3", "--workers=1")


def local_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_bucket_has_the_bytes_of_a_local_run(
    buckets, make_scans, prepare_here, tmp_path
):
    scans = make_scans(tmp_path / "scans", *"abcde")
    (scans / "images" / "c.nii.gz").write_bytes(b"no scan")  # left out, and said
    bucket, cache = buckets.make(), tmp_path / "cache"
    buckets.upload(scans, f"{bucket}/scans")
    buckets.write(f"{bucket}/data/notes.txt", b"of the user")
    flags = (*FLAGS, "--cases_per_shard=2", f"--cache_dir={cache}")
    here = prepare_here(*flags, f"--input={scans}", f"--output={tmp_path / 'data'}")
    expected = local_files(tmp_path / "data")

    done = prepare_here(*flags, f"--input={bucket}/scans", f"--output={bucket}/data")
    assert (here.status, done.status) == (3, 3)
    there = buckets.contents(f"{bucket}/data")
    assert there.pop("notes.txt") == b"of the user"
    assert there.keys() == expected.keys()
    for name, content in there.items():
        # What was left out is named by where it is; the time of each copy is its own.
        if name == "rejected.json":
            here_name, url = str(scans).encode(), f"{bucket}/scans".encode()
            assert content == expected[name].replace(here_name, url)
        elif not name.startswith(".parts/"):
            assert content == expected[name], name
    lines = [*done.out.splitlines(), *done.err.splitlines()]
    said = "\n".join(line for line in lines if not line.startswith("copied "))
    assert f"--data={bucket}/data" in said and str(cache) not in said
    assert str(cache).encode() not in b"".join(there.values())

    again = prepare_here(*flags, f"--input={bucket}/scans", f"--output={bucket}/data")
    assert again.out == done.out and "prepare: memory" not in again.err


def test_tasks_of_a_job_array_fill_a_bucket(s3, make_scans, prepare_here, tmp_path):
    scans = make_scans(tmp_path / "scans", *"abcd")
    url = f"{s3.make()}/data"
    words = (*FLAGS, f"--input={scans}", "--num_shards=2")
    assert prepare_here(*words, f"--output={tmp_path / 'data'}").status == 0
    words = (*words, f"--output={url}")
    for index in (1, 0, 1):  # one of them again
        machine = f"--cache_dir={tmp_path / f'machine {index}'}"
        assert prepare_here(*words, machine, f"--shard_index={index}").status == 0
        if index == 1 and len(s3.contents(url)) == 2:
            missing = prepare_here(*words, f"--cache_dir={tmp_path / 'x'}", "--join")
            assert missing.status == 3 and f"{url}: 1 of 2 shards" in missing.err
    joined = prepare_here(*words, f"--cache_dir={tmp_path / 'other'}", "--join")
    assert joined.status == 0
    assert s3.contents(url) == local_files(tmp_path / "data")


def test_a_changed_scan_is_prepared_again_in_the_bucket(
    gs, make_scans, save_nifti, prepare_here, tmp_path
):
    scans, url = make_scans(tmp_path / "scans", *"abcd"), f"{gs.make()}/data"
    words = (*FLAGS, f"--input={scans}", "--cases_per_shard=2")
    into = (*words, f"--output={url}")
    assert prepare_here(*into, f"--cache_dir={tmp_path / '1'}").status == 0
    before = gs.contents(url)
    make_scans(tmp_path / "others", *"zyx")
    changed = tmp_path / "others" / "images" / "x.nii.gz"
    (scans / "images" / "d.nii.gz").write_bytes(changed.read_bytes())
    assert prepare_here(*into, f"--cache_dir={tmp_path / '2'}").status == 0
    assert prepare_here(*words, f"--output={tmp_path / 'data'}").status == 0
    after = gs.contents(url)
    assert after == local_files(tmp_path / "data")
    same = {name for name in before if before[name] == after[name]}
    assert "cases-00000-of-00002.array_record" in same
    assert "cases-00001-of-00002.array_record" not in same


def test_a_killed_preparation_goes_on_elsewhere(
    gs, make_scans, prepare_here, run_program, tmp_path
):
    scans = make_scans(tmp_path / "scans", *"abcdefghij")
    url = f"{gs.make()}/data"
    words = (*FLAGS, f"--input={scans}", "--cases_per_shard=1")
    into = (*words, f"--output={url}")
    process = run_program("data_prep.prepare", *into, f"--cache_dir={tmp_path / '1'}")
    while len(gs.fs.find(url.partition("://")[2])) < 4:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = gs.contents(url)
    shards = [name for name in before if name.endswith(".array_record")]
    assert "manifest.json" not in before and 2 <= len(shards) < 10

    cache = tmp_path / "another machine"
    on = prepare_here(*into, f"--cache_dir={cache}")
    assert on.status == 0
    done = {
        n for n in before if f".parts/{n.removesuffix('.array_record')}.json" in before
    }
    assert f"{len(done)}/10" in on.err.replace("\r", "\n")  # the bar starts there
    assert prepare_here(*words, f"--output={tmp_path / 'data'}").status == 0
    assert gs.contents(url) == local_files(tmp_path / "data")
    assert not [p for p in cache.rglob("*") if p.is_file() and p.name != "lock"]


def test_an_output_that_cannot_be_written_is_said_before_any_work(
    s3, make_scans, prepare_here, tmp_path
):
    scans = make_scans(tmp_path / "scans", "a")
    none = prepare_here(*FLAGS, f"--input={scans}", "--output=s3://no-bucket-x/data")
    assert none.status == 3 and none.err.count("\n") == 1
    assert "error: s3://no-bucket-x/data: there is no bucket" in none.err
    other = prepare_here(*FLAGS, f"--input={scans}", "--output=ftp://host/data")
    assert other.status == 2 and "gs://BUCKET" in other.err
    assert names.shown(tmp_path) == str(tmp_path)
