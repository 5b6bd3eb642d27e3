"""Writes files atomically, makes folders, takes checksums, and reads users' JSON."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadData, one_line


def make_folder(path: Path) -> None:
    """Makes `path` and checks that it can be written, before any work is done.

    Raises `BadData` where it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Writes a temporary file and renames it: `path` is complete or as it was before.

    The content is on the disk before the rename, so this holds after a power cut too.
    Raises `OSError`; the temporary file is then removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
