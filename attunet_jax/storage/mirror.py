"""Copies a folder or file of a bucket to this host, once, for all its processes.

The copy of URL lies in CACHE_DIR/SCHEME-BUCKET-DIGEST/files/NAME, NAME being the end of
the URL. `copied.jsonl` beside `files` has a line for each file that is whole, so that a
copy that was stopped goes on with the others. Nothing else is ever removed from
CACHE_DIR than what is no longer in the bucket.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from attunet_jax.errors import BadData
from attunet_jax.files import is_unfinished, is_url, replacing
from attunet_jax.storage import names, transfer, urls
from attunet_jax.storage.cache import (
    check_room,
    default_cache,
    folder_name,
    lock,
    written_in,
)
from attunet_jax.storage.journal import entries
from attunet_jax.storage.remote import Remote, file_and_others, files_below, remote_file

TOGETHER = 8  # files copied at once
CHUNK_BYTES = 16 << 20  # asked for at once; one is in memory for each of the files
TRIES = 4  # of a file that does not arrive as it is in the bucket


def mirrored(
    place: str | os.PathLike,
    cache_dir: Path | None = None,
    *,
    beside: Sequence[str] = (),
    wanted: Callable[[str], bool] = lambda name: True,
) -> Path:
    """Returns a local folder (or file) with what is at `place`; a local path as it is.

    A URL is copied into `cache_dir`, `default_cache()` unless given, by the first
    process of this host that asks; others wait for it. What is there already and is
    unchanged in the bucket is not copied again. Each file is checked: the shards of
    prepared data against manifest.json's SHA-256, others against the bucket's size and
    MD5. Prepared data are copied without what is in folders below them. Of a single
    file also those named in `beside` are copied that lie in its folder. Files whose
    name below the URL is not `wanted` stay as they are here: not there, or old.

    Raises `BadArguments` and `BadData` of `storage.urls`, and `BadData` where the copy
    would not fit the disk, cannot be written, or is not what the bucket says.
    """
    if not is_url(place):
        return Path(place)
    url = str(place).rstrip("/")
    fs = urls.filesystem(url)
    found = urls.listing(fs, url)
    cache, path = (cache_dir or default_cache()).absolute(), urls.within(url)
    local = _local(url, cache)
    folder = local.parent.parent
    names.stands_for(local, url)
    is_file = [row["name"].strip("/") for row in found] == [path]
    with (
        names.urls_in_errors(),
        written_in(cache, f"the copy of {url}"),
        _locked(folder, url),
    ):
        if is_file and found[0]["type"] == "file":
            remotes, into = file_and_others(fs, found[0], beside), local.parent
        else:
            remotes, into = files_below(fs, url, found), local
            local.mkdir(parents=True, exist_ok=True)
        remotes = [remote for remote in remotes if wanted(remote.name)]
        _update(fs, remotes, into, folder / "copied.jsonl", url, cache, wanted)
    return local


def copied(place: str | os.PathLike, cache_dir: Path | None = None) -> Path | None:
    """Returns where the copy of a URL is on this host, None where there is none.

    Asks no network, so the copy may be old or half. A local path is returned as it is.
    """
    if not is_url(place):
        return Path(place)
    url = str(place).rstrip("/")
    for cache in filter(None, (cache_dir, default_cache())):
        local = _local(url, cache.absolute())
        if local.exists():
            names.stands_for(local, url)
            return local
    return None


def _local(url: str, cache: Path) -> Path:
    files = cache / folder_name(url) / "files"
    return files / urls.within(url).rpartition("/")[2]


def _update(
    fs: Any,
    remotes: Sequence[Remote],
    local: Path,
    journal: Path,
    url: str,
    cache: Path,
    wanted: Callable[[str], bool],
) -> None:
    """Makes the folder `local` hold `remotes`, and nothing else that is wanted."""
    known = dict(entries(journal))
    there = {remote.name for remote in remotes}
    for path in sorted(local.rglob("*"), reverse=True) if local.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif (name := path.relative_to(local).as_posix()) not in there:
            if wanted(name) or is_unfinished(path.name):
                path.unlink()  # no longer in the bucket, or half of a file
    todo = [remote for remote in remotes if not _is_there(local, remote, known)]
    if not todo:
        return
    needed = sum(remote.size for remote in todo)
    check_room(cache, needed, f"{url}: its copy")
    start_s = time.perf_counter()
    _copy_all(fs, todo, local, journal, url)
    seconds = time.perf_counter() - start_s
    print(
        f"copied {len(todo)} files of {url} ({needed / 1e9:.2f} GB, {seconds:.0f} s) "
        f"into {local}",
        file=sys.stderr,
        flush=True,
    )


def _copy_all(
    fs: Any, todo: Sequence[Remote], local: Path, journal: Path, url: str
) -> None:
    total, stopped = sum(remote.size for remote in todo), threading.Event()
    often_s = 0.5 if sys.stderr.isatty() else 30.0
    with (
        tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc=f"copy {url}",
            mininterval=often_s,
        ) as bar,
        journal.open("a", encoding="utf-8") as lines,
        ThreadPoolExecutor(TOGETHER) as pool,
    ):
        tasks = {
            pool.submit(
                _copy, fs, remote, local / remote.name, url, bar, stopped
            ): remote
            for remote in todo
        }
        try:
            for task in as_completed(tasks):
                entry = {"name": tasks[task].name, **task.result()}
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Differs(Exception):
    """What arrived is not what is in the bucket."""


def _copy(
    fs: Any, remote: Remote, path: Path, url: str, bar: tqdm, stopped: threading.Event
) -> dict[str, Any]:
    """Copies a file and checks it; returns what the journal says of it."""
    name = f"{url.partition('://')[0]}://{remote.path}"
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        try:
            with replacing(path, ending="part") as temporary:
                sha256 = _fetch(fs, remote, temporary, name, bar, stopped)
            break
        except _Differs as error:
            if attempt == TRIES:
                raise BadData(f"{name}: {error}: upload it again") from None
            bar.update(-remote.size)
    return {
        "size": remote.size,
        "mtime_ns": path.stat().st_mtime_ns,
        "version": remote.version,
        "sha256": sha256,
    }


def _fetch(
    fs: Any, remote: Remote, path: Path, name: str, bar: tqdm, stopped: threading.Event
) -> str:
    """Writes a file's content to `path`; returns its SHA-256. Raises `_Differs`."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for first in range(0, remote.size, CHUNK_BYTES):
            if stopped.is_set():
                raise BadData(f"{name}: its copy was stopped")
            last = min(first + CHUNK_BYTES, remote.size)
            content = _chunk(fs, remote.path, first, last, name)
            if len(content) != last - first:
                raise _Differs("has fewer bytes than the bucket lists")
            file.write(content)
            sha256.update(content)
            md5.update(content)
            bar.update(len(content))
        file.flush()
        os.fsync(file.fileno())
    if remote.modified_s is not None:  # the same on all hosts
        os.utime(path, (remote.modified_s, remote.modified_s))
    if remote.sha256:
        if sha256.hexdigest() != remote.sha256:
            raise _Differs("its SHA-256 is not that of manifest.json")
    elif remote.md5 != md5.hexdigest():
        # Without a checksum, or with one of what the bucket has encrypted.
        with urls.answering(name):
            now = remote_file(fs.info(remote.path), remote.name, {})
            encrypted = remote.md5 is None or _is_encrypted(fs, remote.path)
        if not encrypted or (now.size, now.version) != (remote.size, remote.version):
            raise _Differs("its copy has another MD5 than the bucket says")
    return sha256.hexdigest()


def _is_encrypted(fs: Any, path: str) -> bool:
    """Whether S3's ETag of an object is no MD5, as with keys of KMS."""
    if "s3" not in fs.protocol:
        return False
    bucket, _, key = path.partition("/")
    head = fs.call_s3("head_object", Bucket=bucket, Key=key)
    kms = str(head.get("ServerSideEncryption", "")).startswith("aws:")
    return kms or "SSECustomerAlgorithm" in head


def _chunk(fs: Any, path: str, first: int, last: int, name: str) -> bytes:
    """Bytes `first` to `last` of an object; tried again where a network fails."""
    with urls.answering(name):
        return transfer.again(lambda: fs.cat_file(path, start=first, end=last))


def _is_there(local: Path, remote: Remote, known: Mapping[str, Mapping]) -> bool:
    entry = known.get(remote.name)
    try:
        status = (local / remote.name).stat()
    except OSError:
        return False
    if entry is None or status.st_size != remote.size:
        return False
    if status.st_mtime_ns != entry.get("mtime_ns"):
        return False  # changed here
    if remote.sha256:
        return remote.sha256 == entry.get("sha256")
    return remote.version == entry.get("version")


@contextmanager
def _locked(folder: Path, url: str) -> Iterator[None]:
    """Holds the lock of a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(folder)
    except BlockingIOError:
        print(
            f"{url} is being copied by another process of this host: waits for it",
            file=sys.stderr,
            flush=True,
        )
        held = lock(folder, wait=True)
    with held:
        yield
