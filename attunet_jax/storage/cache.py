"""The folder of --cache_dir, in which local folders for URLs lie."""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attunet_jax.errors import BadData
from attunet_jax.files import cache_home
from attunet_jax.storage import urls


def default_cache() -> Path:
    """Returns the folder where no other is named."""
    return cache_home() / "attunet_jax" / "buckets"


def folder_name(url: str) -> str:
    """Returns SCHEME-BUCKET-DIGEST, the name of a folder for this URL alone."""
    path, scheme = urls.within(url), url.partition(":")[0]
    digest = hashlib.sha256(f"{scheme}://{path}".encode()).hexdigest()[:12]
    return f"{scheme}-{path.partition('/')[0]}-{digest}"


def check_room(cache: Path, needed: int, what: str) -> None:
    """Raises `BadData` where `needed` bytes do not fit; `what` begins its line."""
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise BadData(
            f"{what} needs {needed / 1e9:.2f} GB, {cache} has {free / 1e9:.2f} GB "
            "free: name another folder with --cache_dir"
        )


def lock(folder: Path, *, wait: bool = False) -> IO[str]:
    """Takes the lock of a local folder for a URL; closing the file gives it back.

    The system takes it back from a killed process. Raises `BlockingIOError` where
    another process has it, unless it is to `wait`.
    """
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def written_in(cache: Path, what: str) -> Iterator[None]:
    """Turns what the disk refuses within into a `BadData` naming --cache_dir."""
    try:
        yield
    except OSError as error:
        raise BadData(
            f"{cache}: {what} cannot be written ({error.strerror}): name another "
            "folder with --cache_dir"
        ) from None
