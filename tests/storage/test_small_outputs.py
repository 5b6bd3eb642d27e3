"""Outputs of a few files in buckets, against real servers on loopback."""

from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments, exit_status
from attunet_jax.files import write_text
from attunet_jax.storage import names, transfer
from attunet_jax.storage.outputs import staged_file, staged_files


def test_a_file_at_the_top_of_a_bucket_needs_nothing_of_what_is_there(
    buckets, tmp_path
):
    bucket = buckets.make()
    before = {"page.html": b"old", "other.html": b"o", "runs/a/page.html": b"deep"}
    for name, content in before.items():
        buckets.write(f"{bucket}/{name}", content)
    with staged_file(f"{bucket}/page.html", tmp_path, user="report") as page:
        assert names.shown(page) == f"{bucket}/page.html"
        assert {p.name for p in page.parent.rglob("*")} == {"page.html"}
        # Another page of the same folder meanwhile, and the same one not.
        with staged_file(f"{bucket}/b.html", tmp_path, user="report") as other:
            write_text(other, "b")
        with pytest.raises(BadArguments, match=f"{bucket}: another program"):
            with staged_file(f"{bucket}/page.html", tmp_path, user="report"):
                pass
        write_text(page, "new")
    after = before | {"page.html": b"new", "b.html": b"b"}
    assert buckets.contents(bucket) == after
    with staged_files(bucket, tmp_path, user="a", files=("page*", "x.csv")) as folder:
        assert {p.name for p in folder.iterdir()} == {"page.html"}
        write_text(folder / "x.csv", "1")
        write_text(folder / "y.csv", "not named")
    assert buckets.contents(bucket) == after | {"x.csv": b"1"}
    with staged_file("page.html", user="report", cache_dir=None) as page:
        assert page == Path("page.html")  # of this machine it is itself
    with staged_files(tmp_path, None, user="a", files=()) as folder:
        assert folder == tmp_path


def test_a_file_that_cannot_be_uploaded_is_kept_for_the_same_command(
    s3, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(transfer, "WAIT_S", 0.01)
    url = f"{s3.make()}/page.html"

    def program() -> int:
        with staged_file(url, tmp_path, user="report") as page:
            if page.exists():
                return 0
            write_text(page, "whole")
            s3.fs.rm(url.split("/")[2], recursive=True)
        return 0

    assert exit_status(program) == 75
    line = capsys.readouterr().err
    assert line.startswith(f"error: {url}: ") and "same command" in line
    s3.fs.call_s3("create_bucket", Bucket=url.split("/")[2])
    assert exit_status(program) == 0
    assert s3.contents(url.rpartition("/")[0]) == {"page.html": b"whole"}
