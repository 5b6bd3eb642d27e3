"""The folder of --cache_dir, in which local folders for URLs lie."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
