"""Moves one file between a bucket and this machine, tried again where a network fails.

Objects appear in a bucket whole or not at all, so a kill leaves no half of one there.
"""

import base64
import hashlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadData
from attunet_jax.files import replacing
from attunet_jax.storage import urls

TRIES = 4
WAIT_S = 2.0  # before the second try; doubled before each that follows
# A larger file is sent in pieces from the disk. A smaller one is read first: it may be
# a journal that grows meanwhile.
IN_MEMORY_BYTES = 32 << 20


@dataclass(frozen=True)
class Object:
    """What a bucket says of one of its files."""

    size: int
    version: str  # another one when it is written again
    md5: str | None = None  # in hexadecimal, where the bucket knows it


def object_of(row: Mapping[str, Any]) -> Object:
    """Returns an entry of fsspec's listings."""
    etag = str(row.get("ETag") or row.get("etag") or "").strip('"')
    md5 = base64.b64decode(row["md5Hash"]).hex() if row.get("md5Hash") else None
    return Object(int(row["size"]), str(row.get("generation") or etag), md5)


def listed(fs: Any, path: str, flat: bool = False) -> dict[str, dict[str, Any]]:
    """Returns BUCKET/KEY -> entry of what is below a path, `flat` right below it.

    Raises what the library does.
    """
    if not flat:
        return again(lambda: fs.find(path, detail=True))
    try:
        rows = again(lambda: fs.ls(path, detail=True))
    except FileNotFoundError:
        return {}
    return {row["name"]: row for row in rows if row["type"] == "file"}


def download(fs: Any, path: str, size: int, local: Path, url: str) -> None:
    """Writes the object `path` (BUCKET/KEY) to the file `local`; `url` is its name.

    Raises `BadData` where it cannot be read, `OSError` of the disk.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    with replacing(local, ending="part") as temporary:
        with temporary.open("wb") as file:
            for first in range(0, size, IN_MEMORY_BYTES):
                last = min(first + IN_MEMORY_BYTES, size)
                with urls.answering(url):
                    content = again(
                        lambda a=first, b=last: fs.cat_file(path, start=a, end=b)
                    )
                if len(content) != last - first:
                    raise BadData(f"{url}: was changed while it was read: try again")
                file.write(content)


def upload(fs: Any, local: Path, path: str, url: str) -> Object:
    """Writes a file's bytes to the object `path`; returns what the bucket has then.

    Raises `BadData` where it cannot be written, `OSError` where `local` is not there.
    """
    with local.open("rb") as file:
        content = file.read(IN_MEMORY_BYTES)
        whole = not file.read(1)
        md5 = hashlib.md5(content, usedforsecurity=False)
        if not whole:
            file.seek(0)
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    size = len(content) if whole else local.stat().st_size

    def send() -> Object:
        with warnings.catch_warnings():  # of aiohttp: a megabyte or more in one piece
            warnings.simplefilter("ignore", ResourceWarning)
            if whole:
                fs.pipe_file(path, content)
            else:
                fs.put_file(str(local), path)
        there = object_of(fs.info(path))
        if there.size != size or there.md5 not in (None, md5.hexdigest()):
            raise BadData(f"{url}: what arrived in the bucket is not what was sent")
        return there

    with urls.answering(url, "written"):
        return again(send)


def remove(fs: Any, path: str, url: str) -> None:
    """Removes an object, if it is there. Raises `BadData` where it cannot."""

    def send() -> None:
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            pass

    with urls.answering(url, "written"):
        again(send)


def again(call: Callable[[], Any]) -> Any:
    """Calls a function up to `TRIES` times; the last time what it raises passes."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except Exception as error:  # each library has exceptions of its own
            if urls.is_final(error):
                raise
            time.sleep(WAIT_S * 2**attempt)
    return call()
