"""Outputs in buckets, against real servers on loopback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments, BadData, Interrupted, exit_status
from attunet_jax.files import write_text
from attunet_jax.storage import names, transfer, urls
from attunet_jax.storage.staging import Staging, staged


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "WAIT_S", 0.01)


def local_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_bucket_has_at_once_what_is_sent_and_all_at_the_end(buckets, tmp_path):
    url, cache = f"{buckets.make()}/a b/out", tmp_path / "cache"
    buckets.write(f"{url}/before.txt", b"stays")
    buckets.write(f"{url}beside.txt", b"not below")
    with staged(f"{url}/", cache) as output:
        folder = output.folder
        assert folder.name == "out" and names.shown(folder / "x") == f"{url}/x"
        assert (folder / "before.txt").read_bytes() == b"stays"
        (folder / "deep").mkdir()
        write_text(folder / "deep" / "one é.json", "{}")
        write_text(folder / "two.txt", "later")
        output.send(folder / "deep" / "one é.json")
        assert buckets.contents(url) == {
            "before.txt": b"stays",
            "deep/one é.json": b"{}",
        }
        (folder / f".half.{os.getpid()}.new").write_text("not finished")
        (folder / f".half.{os.getpid()}.part.nrrd").write_text("not finished")
        with (folder / "rows.jsonl").open("a") as rows:
            rows.write("1\n")
            rows.flush()
            output.send(folder / "rows.jsonl")
            rows.write("2\n")
        (folder / "before.txt").unlink()
    assert buckets.contents(url) == {
        "deep/one é.json": b"{}",
        "two.txt": b"later",
        "rows.jsonl": b"1\n2\n",
    }
    assert not local_files(folder)
    with staged(tmp_path / "local") as output:  # a path of this machine is itself
        assert output.folder == tmp_path / "local"
        output.send(output.folder / "x")
        output.bring(output.folder / "x")
        assert not output.is_stand_in(output.folder / "x")


def test_files_arrive_in_the_order_in_which_they_were_finished(
    s3, tmp_path, monkeypatch
):
    url, sent = f"{s3.make()}/out", []
    with staged(url, tmp_path) as output:
        for number, name in enumerate("cab"):
            write_text(output.folder / name, name)
            os.utime(output.folder / name, ns=(number, number))
        fs = urls.filesystem(url)
        put = fs.pipe_file
        monkeypatch.setattr(
            fs, "pipe_file", lambda *args: (sent.append(args[0][-1]), put(*args))
        )
        output.send()
        write_text(output.folder / "a", "again")
        output.send()
    assert sent == [*"caba"]


def test_what_is_not_needed_is_there_by_name_and_size_until_it_is(buckets, tmp_path):
    url, content = f"{buckets.make()}/out", b"shard" * 1000
    for name in ("a.bin", "b.bin", "c.json", "other/d.json"):
        buckets.write(f"{url}/{name}", content)
    before = buckets.contents(url)
    options = {
        "bring": lambda name: name.endswith(".json"),
        "wanted": lambda name: not name.startswith("other/"),
    }
    with staged(url, tmp_path, **options) as output:
        a, b, c = (output.folder / name for name in ("a.bin", "b.bin", "c.json"))
        assert {p.name for p in output.folder.iterdir()} == {a.name, b.name, c.name}
        assert output.is_stand_in(a) and output.is_stand_in(b)
        assert a.stat().st_size == 5000 and a.stat().st_blocks == 0
        assert c.read_bytes() == content and not output.is_stand_in(c)
        output.bring(a, c)
        assert a.read_bytes() == content and not output.is_stand_in(a)
        output.drop(a)
        assert output.is_stand_in(a) and a.stat().st_blocks == 0
        output.send()
        assert buckets.contents(url) == before
        b.write_bytes(b"new")
        c.unlink()
    assert buckets.contents(url) == {
        "a.bin": content,
        "b.bin": b"new",
        "other/d.json": content,
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from attunet_jax.files import replacing, write_text
from attunet_jax.storage.staging import Staging
output = Staging(sys.argv[1], Path(sys.argv[2]))
write_text(output.folder / "sent.json", "1")
output.send()
write_text(output.folder / "finished.json", "2")
write_text(output.folder / "both.json", "older")
output.drop(output.folder / "sent.json")
with replacing(output.folder / "half.json") as path:
    path.write_text("ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_program_is_continued_here_and_elsewhere(buckets, tmp_path, capsys):
    url, cache = f"{buckets.make()}/out", tmp_path / "cache"
    words = [sys.executable, "-c", KILLED, url, str(cache)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert buckets.contents(url) == {"sent.json": b"1"}

    with staged(url, tmp_path / "another machine") as output:
        assert local_files(output.folder) == {"sent.json": b"1"}
        write_text(output.folder / "both.json", "newer")
    with staged(url, cache) as output:  # what was finished here is not lost
        assert "uploads 1 files" in capsys.readouterr().err
        assert local_files(output.folder) == buckets.contents(url)
    assert buckets.contents(url) == {
        "sent.json": b"1",
        "finished.json": b"2",
        "both.json": b"newer",
    }


def test_a_failed_upload_is_a_line_and_the_same_command_finishes(s3, tmp_path, capsys):
    url = f"{s3.make()}/out"
    bucket = url.split("/")[2]

    def program(bucket_goes: bool, error: Exception | None = None) -> int:
        with staged(url, tmp_path / "cache") as output:
            assert local_files(output.folder) == before
            write_text(output.folder / "b.json", "b")
            if bucket_goes:
                s3.fs.rm(bucket, recursive=True)
            if error:
                raise error
        return 0

    before = {}
    assert exit_status(lambda: program(True)) == 75
    line = capsys.readouterr().err
    assert f"error: {url}/b.json: there is no bucket {bucket}" in line
    assert "same command" in line and str(tmp_path) not in line
    assert line.count("\n") == 1
    assert exit_status(lambda: program(False)) == 3  # before any work
    assert f"error: {url}: there is no bucket" in capsys.readouterr().err

    s3.fs.call_s3("create_bucket", Bucket=bucket)
    before = {"b.json": b"b"}
    # The program's own mistake comes after what it finished, or is told beside it.
    wrong = BadData(f"{tmp_path}: wrong")
    assert exit_status(lambda: program(False, wrong)) == 3
    assert s3.contents(url) == {"b.json": b"b"}
    capsys.readouterr()
    assert exit_status(lambda: program(True, wrong)) == 75
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "wrong" in lines[0] and "no bucket" in lines[1]


def test_an_upload_is_tried_again_where_the_network_fails(gs, tmp_path, monkeypatch):
    url, fails = f"{gs.make()}/out", [OSError("reset"), TimeoutError()]
    with staged(url, tmp_path) as output:
        fs = urls.filesystem(url)
        put = fs.pipe_file

        def unsteady(path, content):
            if fails:
                raise fails.pop()
            put(path, content)

        monkeypatch.setattr(fs, "pipe_file", unsteady)
        write_text(output.folder / "a", "a")
        output.send()
        assert gs.contents(url) == {"a": b"a"} and not fails
        fails[:] = [OSError("reset by peer")] * 4
        write_text(output.folder / "a", "b")
        with pytest.raises(Interrupted, match="/a: .*reset by peer"):
            output.send()


def test_large_files_are_sent_in_pieces_and_read_again(buckets, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "IN_MEMORY_BYTES", 1 << 20)
    url, content = f"{buckets.make()}/out", os.urandom(6 << 20)
    with staged(url, tmp_path) as output:
        (output.folder / "large").write_bytes(content)
    assert buckets.contents(url) == {"large": content}
    with staged(url, tmp_path) as output:
        assert (output.folder / "large").read_bytes() == content


def test_a_record_that_is_withdrawn_comes_back_only_when_written(gs, tmp_path):
    url = f"{gs.make()}/out"
    gs.write(f"{url}/a.json", b"old")
    output = Staging(url, tmp_path)
    record = output.folder / "a.json"
    output.withdraw(record)
    output.send()
    assert record.read_bytes() == b"old" and gs.contents(url) == {}
    output.release()  # as a kill would
    output = Staging(url, tmp_path)
    assert not record.exists()
    write_text(record, "new")
    output.withdraw(record)
    output.close()
    assert gs.contents(url) == {"a.json": b"new"}


def test_one_program_of_a_machine_writes_to_a_url(gs, tmp_path):
    url = f"{gs.make()}/out"
    with staged(url, tmp_path) as output:
        with pytest.raises(BadArguments, match="another program"):
            Staging(url, tmp_path)
        with staged(url, tmp_path, part="shard-1") as other:  # its own files
            assert other.folder != output.folder
            write_text(other.folder / "b", "b")
        write_text(output.folder / "a", "a")
    assert gs.contents(url) == {"a": b"a", "b": b"b"}


def test_an_output_that_cannot_be_written_is_said_before_any_work(buckets, tmp_path):
    url = buckets.make()
    buckets.write(f"{url}/file", b"content")
    with pytest.raises(BadData, match=r"/file: is a file"):
        Staging(f"{url}/file", tmp_path)
    with pytest.raises(BadData, match="there is no bucket nothing-here"):
        Staging(f"{buckets.scheme}://nothing-here/x", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="--cache_dir"):
        Staging(f"{url}/x", tmp_path / "file" / "cache")
    assert [*buckets.contents(url)] == ["file"]
