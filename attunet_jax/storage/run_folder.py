"""Opens the folder of a run: of this machine, or gs://BUCKET/RUN.

The checkpoints of a run in a bucket are written and read there, by Orbax. Its other
files are small, and some grow, which those of a bucket cannot: a local folder, staged
for each kind of program and each process, stands for them.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attunet_jax.errors import Interrupted
from attunet_jax.files import is_url
from attunet_jax.storage import names, transfer, urls
from attunet_jax.storage.cache import default_cache
from attunet_jax.storage.objects import Objects
from attunet_jax.storage.staging import Staging, staged

CHECKPOINTS = "checkpoints"
# What a run tells of itself and its training.
DESCRIPTION = ("config.json", "environment.json", "metrics.jsonl")
# What is large, and read by nobody but the training that writes it.
OF_TRAINING = (CHECKPOINTS, "logs", "profile", "tensorboard")
# What Orbax writes last, in a bucket: without it a step is not whole.
COMMITTED = "commit_success.txt"
SEND_EVERY_S = 30.0


@contextmanager
def written(
    workdir: Path | str,
    cache_dir: Path | None = None,
    *,
    user: str,
    files: Sequence[str] = (),
) -> Iterator[Staging]:
    """Yields the folder of a run for a program that writes in it, and closes it.

    Args:
      workdir: the folder of a run, or one of several runs.
      cache_dir: where local folders for URLs lie.
      user: names the program and what is not to meet another in one folder.
      files: the files and folders of the run that the program reads or writes; all but
        `OF_TRAINING` unless given.

    Raises `BadArguments` and `BadData` as `staged`.
    """

    def is_named(name: str) -> bool:
        if not files:
            return not set(OF_TRAINING) & set(name.split("/"))
        return any(name == file or name.startswith(f"{file}/") for file in files)

    _open_for_epath(workdir)
    with staged(workdir, cache_dir, wanted=is_named, part=user) as folder:
        yield folder


@contextmanager
def read(
    workdir: Path | str, cache_dir: Path | None = None, *, files: Sequence[str] = ()
) -> Iterator[Path]:
    """Yields the folder of a run, or of several, for a program that only reads.

    Of a bucket it has the `files` that are there, as they are now; `*` in one stands
    for the name of any file or folder.

    Raises `BadArguments` and `BadData` as `urls.check_readable`.
    """
    if not is_url(workdir):
        yield Path(workdir)
        return
    url = str(workdir).rstrip("/")
    with names.urls_in_errors():
        urls.check_readable(url)
        _open_for_epath(url)
        folder = (cache_dir or default_cache()).absolute() / "runs" / urls.within(url)
        names.stands_for(folder, url)
        if files:
            _fetch(url, folder, files)
        yield folder


def _fetch(url: str, folder: Path, files: Sequence[str]) -> None:
    """Makes the files of these names be here as they are in the bucket, and no more."""
    bucket = Objects(url)
    there = bucket.listed(
        lambda name: any(_is_of(name, pattern) for pattern in files),
        flat=not any("/" in pattern for pattern in files),
    )
    for pattern in files:
        for local in folder.glob(pattern):
            if local.relative_to(folder).as_posix() not in there:
                local.unlink()
    for name, found in there.items():
        bucket.download(name, found.size, folder / name)


def _is_of(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


@contextmanager
def sending(folder: Staging) -> Iterator[None]:
    """Within, what is finished in a staged folder is sent twice a minute."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(SEND_EVERY_S):
            try:
                folder.send()
            except Interrupted:
                return  # what sends all at the end says so

    thread = threading.Thread(target=send, daemon=True)
    if folder.url:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if folder.url:
            thread.join()  # not to send when the folder is gone


def place(path: Path) -> Any:
    """Where `path` really is: an `epath.Path` in a bucket, or as it is."""
    shown = names.shown(path)
    if not is_url(shown):
        return path
    from etils import epath  # late: most programs need none

    return epath.Path(shown)


def whole_steps(workdir: Path) -> list[int]:
    """Returns the steps of which a run has a whole checkpoint, oldest first; no JAX."""
    folder = place(workdir / CHECKPOINTS)
    try:
        steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
    except (FileNotFoundError, NotADirectoryError):
        return []
    if isinstance(folder, Path):
        return steps
    return [step for step in steps if (folder / str(step) / COMMITTED).exists()]


def bytes_of_step(workdir: Path, step: int) -> int:
    """Returns the size of a run's checkpoint of a step."""
    folder = workdir / CHECKPOINTS / str(step)
    url = names.shown(folder)
    if is_url(url):
        with urls.answering(url):
            return transfer.again(lambda: urls.filesystem(url).du(urls.within(url)))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _open_for_epath(workdir: Path | str) -> None:
    """Sets up the file systems that epath opens by itself."""
    if not is_url(workdir):
        return
    urls.filesystem(str(workdir))  # is it one of ours, and the library there?
    from fsspec import config

    # No listings are kept: TensorStore and other processes write there too.
    given: dict[str, Any] = {"use_listings_cache": False}
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        given["token"] = "anon"
    config.conf["gs"] = given | config.conf.get("gs", {})
