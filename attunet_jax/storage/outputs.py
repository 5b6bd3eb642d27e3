"""Outputs of a few files that are made anew, in a folder here or in a bucket.

Nothing of what is in the bucket is copied for them, and folders below are not listed:
an output may be at the top of a large bucket.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from attunet_jax.storage.staging import staged


@contextmanager
def staged_files(
    folder: str | os.PathLike,
    cache_dir: Path | None,
    *,
    user: str,
    files: tuple[str, ...],
) -> Iterator[Path]:
    """Yields the local folder in which these files are written; a path as it is.

    Args:
      folder: a folder of this machine, or a URL.
      cache_dir: where local folders for URLs lie.
      user: names the program, apart from others that write into the folder.
      files: names, or patterns as of a shell.

    Raises as `staged`.
    """
    with staged(
        folder,
        cache_dir,
        bring=lambda name: False,
        wanted=lambda name: any(fnmatchcase(name, file) for file in files),
        part=user,
        flat=True,
    ) as stage:
        yield stage.folder


@contextmanager
def staged_file(
    file: str | os.PathLike, cache_dir: Path | None, *, user: str
) -> Iterator[Path]:
    """Yields the local path at which one file is written; otherwise `staged_files`."""
    folder, name = os.path.split(file)
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    with staged(
        folder,
        cache_dir,
        bring=lambda other: False,
        wanted=lambda other: other == name,
        part=f"{user}-{digest}",
        flat=True,
    ) as stage:
        yield stage.folder / name
