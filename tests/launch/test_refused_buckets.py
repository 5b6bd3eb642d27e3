"""Buckets that a program may not write, or not even read: said before any work."""

import time

import pytest

from attunet_jax.errors import exit_status
from attunet_jax.storage import urls
from data_prep import prepare

NO_WRITE, NOBODY = "may not be written with these credentials", "no credentials for it"
SCANS = ("--source=nifti", "--labels=spleen=1,pancreas=2,kidney=3", "--workers=1")


@pytest.fixture
def refused(refused_here, monkeypatch, tmp_path, capsys):
    """Runs a program that must be refused within seconds; returns its line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(program, *words):
        began_s = time.monotonic()
        if program == "data_prep.prepare":
            assert exit_status(lambda: prepare.main([*SCANS, *words])) == 3
            line = capsys.readouterr().err
            assert line.count("\n") == 1
        else:
            status, line = refused_here(program, *words)
            assert status == 3
        assert time.monotonic() - began_s < 30  # the libraries alone try for minutes
        files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert not {name for name in files if "fontlist" not in name} - {"lock"}
        return line

    return run


def test_a_bucket_that_takes_no_writes_is_named_before_any_work(
    buckets, refused, trained
):
    bucket = buckets.make("closed")
    buckets.write(f"{bucket}/run/config.json", b"{}")
    buckets.make_read_only(bucket)
    before = buckets.contents(bucket)
    scans, data = "--input=nowhere", "--data=nowhere"  # looked at later
    output, trained_run = f"--output={bucket}/out", f"--workdir={trained[0]}"
    line = refused("data_prep.prepare", scans, output)
    assert line.startswith(f"error: {bucket}/out: {NO_WRITE}")
    for program, *words in (
        ("launch.predict", trained_run, scans, output),
        ("launch.evaluate", trained_run, data, output),
    ):
        assert refused(program, *words).startswith(f"{bucket}/out: {NO_WRITE}")
    if buckets.scheme == "gs":
        run = f"--workdir={bucket}/run"
        for program, *words in (
            ("launch.train", data, run),
            ("launch.evaluate", data, run),
            ("launch.figures", data, run),
            ("launch.import_weights", scans, run),
        ):
            assert refused(program, *words).startswith(f"{bucket}/run: {NO_WRITE}")
    assert buckets.contents(bucket) == before


def test_a_bucket_without_credentials_is_named_by_readers_and_writers(
    buckets, refused, trained, prepared, scan_folder, monkeypatch, tmp_path
):
    bucket = buckets.make("private")
    buckets.make_private(bucket, monkeypatch)
    scans, data = f"--input={scan_folder}", f"--data={prepared}"
    output, trained_run = f"--output={bucket}/x", f"--workdir={trained[0]}"
    there, here = f"{bucket}/x", f"--output={tmp_path / 'out'}"
    new_run = f"--workdir={tmp_path / 'run'}"
    cases = [
        ("data_prep.prepare", scans, output),
        ("data_prep.prepare", f"--input={there}", here),
        ("launch.train", f"--data={there}", new_run),
        ("launch.predict", trained_run, scans, output),
        ("launch.predict", trained_run, f"--input={there}", here),
        ("launch.evaluate", trained_run, data, output),
        ("launch.evaluate", trained_run, f"--data={there}", here),
    ]
    if buckets.scheme == "gs":
        run = f"--workdir={there}"
        cases += [
            ("launch.train", data, run),
            ("launch.train", data, new_run, f"--config.init_from={there}"),
            ("launch.predict", run, scans, here),
            ("launch.evaluate", run, data),
            ("launch.figures", run, data),
            ("launch.import_weights", run, f"--input={prepared}/manifest.json"),
        ]
    for program, *words in cases:
        line = refused(program, *words).removeprefix("error: ")
        assert line.startswith(f"{there}: {NOBODY}: "), (program, words, line)


def test_credentials_that_have_run_out_are_as_none():
    from google.auth.exceptions import RefreshError

    with pytest.raises(urls.BadData, match="gs://b-c/d: no credentials for it: run"):
        with urls.answering("gs://b-c/d"):
            raise RefreshError("Reauthentication is needed.")
    assert urls.is_final(RefreshError("Reauthentication is needed."))
