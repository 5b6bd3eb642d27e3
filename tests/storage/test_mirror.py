"""Copies of buckets on a host, against real servers on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.storage import mirror, names, urls
from attunet_jax.storage.mirror import mirrored


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def prepared_like(folder: Path, sizes=(900_000, 5, 700)) -> Path:
    """A folder with a manifest and shards of these sizes, and files beside them."""
    folder.mkdir(parents=True)
    shards = []
    for number, size in enumerate(sizes):
        content = bytes(i * (number + 3) % 251 for i in range(min(size, 5000)))
        content = (content * (size // len(content) + 1))[:size]
        name = f"cases-{number}.array_record"
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        shards.append({"file": name, "bytes": size, "sha256": digest, "records": 1})
    (folder / "manifest.json").write_text(json.dumps({"shards": shards}))
    (folder / "splits.json").write_text("{}")
    return folder


def test_a_folder_is_copied_once_and_only_what_changes_again(
    buckets, tmp_path, monkeypatch, capsys
):
    folder = prepared_like(tmp_path / "data")
    url = f"{buckets.make()}/a/data"
    buckets.upload(folder, url)
    cache = tmp_path / "cache"
    monkeypatch.setattr(mirror, "CHUNK_BYTES", 1 << 18)  # several of a file
    local = mirrored(f"{url}/", cache)
    assert local.name == "data" and contents(local) == contents(folder)
    assert names.shown(local / "x") == f"{url}/x"
    assert "copied 5 files" in capsys.readouterr().err
    times = {p.name: p.stat().st_ctime_ns for p in local.iterdir()}
    assert mirrored(url, cache) == local
    assert capsys.readouterr().err == ""

    (folder / "splits.json").write_text('{"drawn": "anew"}')
    buckets.upload(folder, url)  # the shards are other objects of the same bytes
    buckets.write(f"{url}/more.txt", b"one")
    mirrored(url, cache)
    buckets.remove(f"{url}/more.txt")
    (local / "cases-1.array_record").write_bytes(b"other")  # of the same length
    assert contents(mirrored(url, cache)) == contents(folder)
    again = {p.name for p in local.iterdir() if p.stat().st_ctime_ns != times[p.name]}
    assert again - {"manifest.json"} == {"splits.json", "cases-1.array_record"}


def test_scans_are_copied_with_their_folders_and_one_file_alone(buckets, tmp_path):
    scans, bucket = tmp_path / "scans", buckets.make()
    for name in ("a/1.nii.gz", "a/b/2.nii.gz", "a/b/empty", "c d+é%20.nii"):
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        (scans / name).write_bytes(name.encode() if "empty" not in name else b"")
    buckets.upload(scans, bucket)
    buckets.write(f"{bucket}/e/", b"")  # how a browser makes a folder
    cache = tmp_path / "cache"
    assert contents(mirrored(bucket, cache)) == contents(scans)
    local = mirrored(f"{bucket}/a/b/2.nii.gz", cache)
    assert local.name == "2.nii.gz" and local.read_bytes() == b"a/b/2.nii.gz"
    assert contents(mirrored(f"{bucket}/a/b", cache)).keys() == {"2.nii.gz", "empty"}
    assert mirrored(scans) == scans  # what is here is not copied


def test_a_copy_goes_on_after_a_kill_and_processes_of_a_host_share_it(
    gs, tmp_path, monkeypatch
):
    """The first of three is killed when it has one of two shards."""
    folder = prepared_like(tmp_path / "data", (400_000, 400_001))
    url, cache = f"{gs.make()}/data", tmp_path / "cache"
    gs.upload(folder, url)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from attunet_jax.storage import mirror\n"
        "chunk, slow = mirror._chunk, sys.argv[3]\n"
        "def slowly(fs, path, *words):\n"
        "    if slow in path: time.sleep(60)\n"
        "    return chunk(fs, path, *words)\n"
        "mirror._chunk = slowly\n"
        "print(mirror.mirrored(sys.argv[1], Path(sys.argv[2])))"
    )

    def start(slow):
        words = [sys.executable, "-c", program, url, cache, slow]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    first = start("cases-1")
    until = time.monotonic() + 60
    while not (
        (done := [*cache.glob("*/copied.jsonl")])
        and len(done[0].read_text().splitlines()) == 3
        and len([*cache.glob("*/files/data/.*.part")]) == 1
    ):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.02)
    others = [start("cases-0"), start("cases-0")]  # which they need not copy
    for other in others:
        assert other.stderr
        assert "copied by another process" in other.stderr.readline()
    first.kill()
    results = [other.communicate(timeout=60) for other in others]
    assert [other.returncode for other in others] == [0, 0]
    first.communicate()
    assert sum("copied 1 files" in errors for _, errors in results) == 1
    assert contents(Path(results[0][0].strip())) == contents(folder)


def test_what_does_not_fit_the_disk_is_said_before_the_copy(gs, tmp_path, monkeypatch):
    url, cache = f"{gs.make()}/data", tmp_path / "cache"
    gs.upload(prepared_like(tmp_path / "data", (20_000_000,)), url)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 10_000_000))
    with pytest.raises(BadData, match="needs 0.02 GB, .* has 0.01 GB .*--cache_dir"):
        mirrored(url, cache)
    assert not [*cache.glob("*/files/**/*.*")]
    (tmp_path / "file").touch()
    with pytest.raises(BadData, match=f"{tmp_path}/file: .*--cache_dir"):
        mirrored(url, tmp_path / "file")


def test_a_copy_that_differs_is_no_copy(buckets, tmp_path, monkeypatch):
    folder, bucket = prepared_like(tmp_path / "data"), buckets.make()
    buckets.upload(folder, f"{bucket}/data")
    shard = f"{bucket}/data/cases-1.array_record"
    buckets.write(shard, b"wrong")  # as many bytes as the right ones
    with pytest.raises(BadData, match=f"{shard}: its SHA-256 .* manifest.json"):
        mirrored(f"{bucket}/data", tmp_path / "cache")
    buckets.write(shard, b"longer than it was")
    with pytest.raises(BadData, match=f"{shard}: has 18 bytes, manifest.json says 5 "):
        mirrored(f"{bucket}/data", tmp_path / "cache")
    buckets.remove(shard)
    with pytest.raises(BadData, match=f"{shard}: no such shard, manifest.json"):
        mirrored(f"{bucket}/data", tmp_path / "cache")
    buckets.write(f"{bucket}/scans/a", b"abc")
    monkeypatch.setattr(mirror, "_chunk", lambda *_: b"xyz")  # a broken network
    with pytest.raises(BadData, match=f"{bucket}/scans/a: .*MD5"):
        mirrored(f"{bucket}/scans", tmp_path / "cache")
    assert not [*tmp_path.glob("cache/*/files/scans/*")]


def test_names_that_are_no_files_are_refused(s3, tmp_path):
    for keys in (("../x",), ("a//b",), ("a/./b",), ("a", "a/b")):
        bucket = s3.make()
        for key in keys:
            s3.fs.call_s3(
                "put_object", Bucket=bucket[5:], Key=f"scans/{key}", Body=b"x"
            )
        with pytest.raises(BadData, match="rename it"):
            mirrored(f"{bucket}/scans", tmp_path / "cache")
    assert {p.name for p in tmp_path.iterdir()} <= {"cache"}


def test_a_bucket_that_cannot_be_used_is_one_line_in_seconds(
    buckets, tmp_path, monkeypatch
):
    bucket, cache = buckets.make(), tmp_path / "cache"
    scheme, start_s = buckets.scheme, time.monotonic()
    for url, reason in (
        (f"{scheme}://no-such-bucket/x", "there is no bucket no-such-bucket"),
        (f"{scheme}://no-such-bucket", "there is no bucket no-such-bucket"),
        (f"{bucket}/x", "there is nothing of this name in the bucket"),
    ):
        with pytest.raises(BadData, match=f"{url}: {reason}") as error:
            mirrored(url, cache)
        assert "\n" not in str(error.value)
    with pytest.raises(BadData, match="there is no bucket"):
        urls.check_writable(f"{scheme}://no-such-bucket/x")
    urls.check_writable(f"{bucket}/runs/a")
    assert buckets.contents(bucket) == {}
    monkeypatch.setattr(urls, "ANSWER_S", 2.0)
    with monkeypatch.context() as closed:
        for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL"):
            closed.setenv(name, "http://127.0.0.1:9")  # nobody listens there
        with pytest.raises(BadData, match="no answer|cannot be read|onnect"):
            mirrored(f"{bucket}/x", cache)
    if scheme == "s3":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        with pytest.raises(BadData, match="no credentials for it: .*aws configure"):
            mirrored(f"{bucket}/x", cache)
    assert time.monotonic() - start_s < 20
    assert not cache.exists()


def test_a_forbidden_bucket_is_one_line(buckets, tmp_path, monkeypatch):
    """A server that refuses everything stands for one that knows other people."""
    import http.server
    import threading

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            body = b'{"error": {"code": 403, "message": "no access"}}'
            if buckets.scheme == "s3":
                body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL"):
            monkeypatch.setenv(name, address)
        start_s = time.monotonic()
        url = f"{buckets.scheme}://somebody/data"
        with pytest.raises(BadData, match="may not be read with these credentials"):
            mirrored(url, tmp_path / "cache")
        assert time.monotonic() - start_s < 5
        server.shutdown()


def test_a_scheme_that_cannot_be_read_is_refused(monkeypatch):
    for url in (
        "hf://a/b",
        "az://box/x",
        "file:///data",
        "http://x.org/a",
        "GS://bucket/x",
        "gs:/bucket/x",
        "gs://",
        "gs://ab/x",
        "gs://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/a\nb",
    ):
        with pytest.raises(BadArguments) as error:
            urls.filesystem(url)
        assert str(error.value).startswith(f"{url}: ")
    with pytest.raises(BadArguments, match="must be a path of this machine or gs://"):
        urls.check_url("s3://bucket/run", ("gs",))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadArguments, match=r"gcsfs: pip install -e '\.\[gcs\]'"):
        urls.check_url("gs://bucket/x")


def test_libraries_of_buckets_are_not_imported_before_a_url_is_opened():
    code = (
        "import sys; from launch import cli; import attunet_jax.storage.mirror\n"
        "assert cli.readable('gs://bucket/x') == 'gs://bucket/x'\n"
        "print({'jax', 'fsspec', 'gcsfs', 's3fs', 'aiohttp'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "set()", done.stderr
