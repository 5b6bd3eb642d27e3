"""Buckets for tests: the servers of two emulators on loopback, one each a session.

Imported by tests/conftest.py: any test may ask for `gs` or `s3`.
"""

import json
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

GS = {
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
}
S3 = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Buckets:
    """The buckets of one emulator, as another program would fill and read them."""

    def __init__(self, scheme: str, address: str, environment: dict[str, str]) -> None:
        self.scheme, self.address, self.environment = scheme, address, environment

    @cached_property
    def fs(self) -> Any:
        """The library's own file system, without that of attunet_jax."""
        options = {
            "endpoint_url": self.address,
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }
        if self.scheme == "s3":
            import s3fs

            return s3fs.S3FileSystem(**options)
        import gcsfs

        return gcsfs.GCSFileSystem(token="anon", project="test", **options)

    def make(self, name: str = "bucket") -> str:
        """Makes a bucket of this name and random letters; returns its URL."""
        bucket = f"{name}-{secrets.token_hex(4)}"
        if self.scheme == "s3":
            self.fs.call_s3("create_bucket", Bucket=bucket)
        else:
            self.fs.mkdir(bucket)
        return f"{self.scheme}://{bucket}"

    def upload(self, folder, url: str) -> None:
        """Puts the files of a folder below a URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                self.write(f"{url}/{name}", path.read_bytes())

    def write(self, url: str, content: bytes) -> None:
        with warnings.catch_warnings():  # of aiohttp, about a megabyte in one piece
            warnings.simplefilter("ignore", ResourceWarning)
            self.fs.pipe_file(url.partition("://")[2], content)

    def make_read_only(self, url: str) -> None:
        """From now on the bucket takes no writes of anybody."""
        bucket = url.split("/")[2]
        if self.scheme == "gs":
            self.write(f"gs://{bucket}/.read-only", b"")  # see gs_server.py
            return
        rule = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:PutObject", "s3:DeleteObject"],
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        self.fs.call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)

    def make_private(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on no program has credentials for the bucket."""
        if self.scheme == "gs":
            self.write(f"gs://{url.split('/')[2]}/.private", b"")
            return
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, "/dev/null")

    def remove(self, url: str) -> None:
        self.fs.rm_file(url.partition("://")[2])

    def contents(self, url: str) -> dict[str, bytes]:
        """Returns name below the URL -> bytes of all objects there."""
        fs, base = self.fs, url.partition("://")[2].rstrip("/")
        return {name[len(base) + 1 :]: fs.cat_file(name) for name in fs.find(base)}


@contextmanager
def _server(*words: str) -> Iterator[str]:
    """Runs a server, with PORT in its words; yields its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *(w.replace("PORT", str(port)) for w in words)]
    root, quiet = Path(__file__).resolve().parents[2], subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=root, stdout=quiet, stderr=quiet)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, command
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def _gs_server():
    words = ("start", "--host=127.0.0.1", "--port=PORT", "--in-memory")
    with _server("tests.storage.gs_server", *words) as address:
        places = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")
        yield Buckets("gs", address, GS | dict.fromkeys(places, address))


@pytest.fixture(scope="session")
def _s3_server():
    with _server("moto.server", "-H", "127.0.0.1", "-p", "PORT") as address:
        yield Buckets("s3", address, S3 | {"AWS_ENDPOINT_URL": address})


@pytest.fixture
def gs(_gs_server, monkeypatch) -> Buckets:
    """Google's storage; this process and those it starts use the emulator."""
    for name, value in _gs_server.environment.items():
        monkeypatch.setenv(name, value)
    return _gs_server


@pytest.fixture
def s3(_s3_server, monkeypatch) -> Buckets:
    """Amazon's storage; this process and those it starts use the emulator."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture(params=["gs", "s3"])
def buckets(request) -> Buckets:
    """Each of the two."""
    return request.getfixturevalue(request.param)
