"""Writes files atomically, makes folders, takes checksums, and reads users' JSON."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attunet_jax import interrupts
from attunet_jax.errors import BadArguments, BadData, one_line

# Two slashes, or the one that `Path` leaves of them.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
OF_THIS_MACHINE = "of this machine, no URL (a bucket can be mounted as a folder)"
# The names that `replacing` gives to what is not finished.
_UNFINISHED = re.compile(r"\..+\.\d+\.(new|part)(\..+)?")
# What is being written; removed where a signal ends the program.
_unfinished: set[Path] = set()


def is_url(place: str | os.PathLike) -> bool:
    return _URL.match(str(place)) is not None


def local_path(place: str | os.PathLike) -> Path:
    """Returns `place` as a path of this machine's file systems.

    Raises `BadArguments` for a URL: it would name a folder "gs:" here.
    """
    if is_url(place):
        raise BadArguments(f"{place}: must be a path {OF_THIS_MACHINE}")
    return Path(place)


def cache_home() -> Path:
    """Returns the folder of this user's caches; XDG's counts where it is absolute."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".cache"


def make_folder(path: Path) -> None:
    """Makes `path` and checks that it can be written, before any work is done.

    Raises `BadData` where it cannot, `BadArguments` for a URL.
    """
    local_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        with interrupts.changing():
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None


@contextmanager
def replacing(path: Path, *, ending: str = "new") -> Iterator[Path]:
    """Yields a temporary path; what is written there becomes `path` at the end.

    So `path` is complete or as it was before, also where an exception or a signal comes
    in between: the temporary file is then removed.
    """
    path = local_path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{ending}")
    with interrupts.changing():
        _unfinished.add(temporary)
    try:
        yield temporary
        with interrupts.changing():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def is_unfinished(name: str) -> bool:
    """Whether a file is named as one that `replacing` did not finish."""
    return _UNFINISHED.fullmatch(name) is not None


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Makes a folder of this name and random letters, and removes it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)


def write_text(path: Path, text: str) -> None:
    """Writes a temporary file and renames it: `path` is complete or as it was before.

    The content is on the disk before the rename, so this holds after a power cut too.
    Raises `OSError`; the temporary file is then removed.
    """
    with replacing(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(files: Iterable[Path]) -> str:
    """Returns a checksum of files, whatever their names and order."""
    sums = sorted(sha256(path) for path in files)
    if len(sums) == 1:
        return sums[0]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def read_json(path: Path, remedy: str = "correct it") -> Any:
    """Reads a JSON file as people's programs write it: with a byte order mark too.

    Raises `FileNotFoundError`, whose meaning the caller knows, and `BadData` naming the
    file, what is wrong where in it, and the `remedy`.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    return parse_json(path, content, remedy)


def parse_json(path: Path, content: bytes, remedy: str = "correct it") -> Any:
    """Returns the value of a JSON file's bytes in UTF-8, UTF-16 or UTF-32.

    A name that an object has twice is an error: one of the two would be lost. Raises
    `BadData` as `read_json` does.
    """

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} is there twice in one object")
        return found

    try:
        return json.loads(content, object_pairs_hook=as_dict)
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
    raise BadData(f"{path}: not JSON ({reason}): {remedy}")


def _remove_unfinished() -> None:
    for path in list(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


interrupts.at_end(_remove_unfinished)
