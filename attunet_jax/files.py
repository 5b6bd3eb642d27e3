"""Writes files atomically, makes folders that can be written, and takes checksums."""

import hashlib
import os
from pathlib import Path

from attunet_jax.errors import BadData


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
