"""Lists the files of a bucket that a copy consists of, and how each can be checked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attunet_jax.errors import BadData
from attunet_jax.storage import urls
from attunet_jax.storage.transfer import object_of


@dataclass(frozen=True)
class Remote:
    """A file of the bucket."""

    name: str  # below the URL, with slashes; of a single file its own name
    path: str  # BUCKET/KEY
    size: int
    version: str  # another one when the object is written again
    md5: str | None  # in hexadecimal, where the bucket knows it
    sha256: str | None  # in hexadecimal, where manifest.json knows it
    modified_s: float | None  # when it was written, in seconds since 1970


def file_and_others(fs: Any, row: Mapping, others: Sequence[str]) -> list[Remote]:
    """Returns a file and those of `others` that are beside it."""
    folder = row["name"].rpartition("/")[0]
    found = [remote_file(row, row["name"].rpartition("/")[2], {})]
    for name in others:
        try:
            found.append(remote_file(fs.info(f"{folder}/{name}"), name, {}))
        except Exception:  # not there, or not to be seen: it need not be
            continue
    return found


def files_below(fs: Any, url: str, found: Sequence[Mapping]) -> list[Remote]:
    """The files to copy. Raises `BadData` for names that cannot be files here."""
    path = urls.within(url)
    files = {r["name"]: r for r in found if r["type"] == "file"}
    shards = _shards(fs, url, files.get(f"{path}/manifest.json"))
    if shards:
        chosen = {
            name: row
            for name, row in files.items()
            if name.rpartition("/")[2] in shards or not name.endswith(".array_record")
        }
        for name, (size, _) in shards.items():
            row = files.get(f"{path}/{name}")
            if row is None or row["size"] != size:
                has = "no such shard" if row is None else f"has {row['size']} bytes"
                raise BadData(
                    f"{url}/{name}: {has}, manifest.json says {size} bytes: upload it "
                    "again"
                )
    else:
        with urls.answering(url):
            chosen = fs.find(path, detail=True)
    remotes = []
    for name, row in sorted(chosen.items()):
        below = name.strip("/")[len(path) + 1 :]
        if name.endswith("/") or not below:
            continue  # stands for an empty folder
        if {"", ".", ".."} & set(below.split("/")) or "\0" in below:
            raise BadData(f"{url}/{below}: cannot be the name of a file: rename it")
        remotes.append(remote_file(row, below, shards))
    below = {remote.name for remote in remotes}
    for name in below:
        if any(parent in below for parent in _parents(name)):
            raise BadData(f"{url}/{name}: lies below a file, no folder: rename it")
    if not remotes:
        raise BadData(f"{url}: there are no files in it")
    return remotes


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _shards(fs: Any, url: str, row: Mapping | None) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of the shards, where manifest.json is one of prepared data."""
    if row is None:
        return {}
    with urls.answering(url):
        content = fs.cat_file(row["name"])
    try:
        listed = json.loads(content)["shards"]
        return {str(s["file"]): (int(s["bytes"]), str(s["sha256"])) for s in listed}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}  # another program's, or damaged: who reads it says so


def remote_file(
    row: Mapping, name: str, shards: Mapping[str, tuple[int, str]]
) -> Remote:
    there = object_of(row)
    modified = row.get("LastModified") or row.get("mtime")
    md5, etag = there.md5, str(row.get("ETag") or "").strip('"')
    if md5 is None and len(etag) == 32 and not row.get("SSEKMSKeyId"):
        md5 = etag if not etag.strip("0123456789abcdef") else None
    return Remote(
        name=name,
        path=row["name"],
        size=there.size,
        version=there.version,
        md5=md5,
        sha256=shards[name][1] if name in shards else None,
        modified_s=modified.timestamp() if modified else None,
    )
