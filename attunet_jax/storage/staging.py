"""A local folder in which a program writes what belongs into a bucket.

    with staged(url, cache_dir) as output:
        write_text(output.folder / "a.json", text)
        output.send(output.folder / "a.json")

The folder lies in CACHE_DIR/staged-SCHEME-BUCKET-DIGEST/files/NAME, NAME being the end
of the URL. What is in the bucket is brought into it first, so that work goes on where
it was, on whatever machine. `send` uploads what was finished since, in the order in
which it was finished here: the bucket holds at any moment what this folder held at an
earlier one, and a manifest or record that says "complete" comes after what it is about.
At the end all is sent and the folder is removed.

`sent.jsonl` beside `files` says which files the bucket has. After a kill those that
were finished and not sent are sent by the next start on this machine, unless another
one has written them meanwhile: what is in the bucket counts. Two programs of one
machine cannot write to one URL at once. Two machines can, and are not kept apart: of a
file that both write, the last one stays.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from attunet_jax.errors import BadArguments, BadData, Interrupted, one_line
from attunet_jax.files import is_unfinished, is_url
from attunet_jax.storage import names, urls
from attunet_jax.storage.cache import (
    check_room,
    default_cache,
    folder_name,
    lock,
    written_in,
)
from attunet_jax.storage.objects import Objects
from attunet_jax.storage.sent import Known, Sent

TOGETHER = 8  # files brought in at once
_LATER = "what is finished is kept on this machine, the same command uploads it"


class Staging:
    """The folder that stands for an output; of a path of this machine, that itself.

    Use `staged`, which closes it.
    """

    def __init__(
        self,
        place: str | os.PathLike,
        cache_dir: Path | None = None,
        *,
        bring: Callable[[str], bool] = lambda name: True,
        wanted: Callable[[str], bool] = lambda name: True,
        part: str = "",
        flat: bool = False,
    ) -> None:
        """Opens the folder, with what is in the bucket.

        Args:
          place: a folder of this machine, which stays as it is, or a URL.
          cache_dir: where local folders for URLs lie; `default_cache()` unless given.
          bring: for each name below the URL, whether its content is needed. A file
            whose content is not is a stand-in: it has the name and size, and no bytes.
          wanted: for each name, whether it is there at all for this program.
          part: names one of several folders for one URL, for processes that write
            different files of it at once.
          flat: whether what is in folders below the URL is passed over, unlisted.

        Raises `BadArguments` and `BadData` as `urls.check_writable`, `BadArguments`
        where another program of this machine writes there, `BadData` where the disk is
        full.
        """
        self.url: str | None = None
        self.failed = False  # whether something could not be uploaded
        self._lock: IO[str] | None = None
        self.folder = Path(place)
        if not is_url(place):
            return
        self.url = str(place).rstrip("/")
        urls.check_writable(self.url)
        self._bucket = Objects(self.url)
        self._wanted, self._is_needed, self._flat = wanted, bring, flat
        self._cache = (cache_dir or default_cache()).absolute()
        home = f"staged-{folder_name(self.url)}" + (f"-{part}" if part else "")
        self._home = self._cache / home
        self.folder = self._home / "files" / urls.within(self.url).rpartition("/")[2]
        names.stands_for(self.folder, self.url)
        self._changes = threading.Lock()
        with self._written():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = lock(self._home)
            except BlockingIOError:
                raise BadArguments(
                    f"{self.url}: another program of this machine writes there: wait "
                    "for its end"
                ) from None
            try:
                self._open()
            except BaseException:
                self.release()
                raise

    def send(self, *paths: Path) -> None:
        """Makes the bucket have these files as they are here, or not, if removed.

        Without `paths` all of the folder. Files with the names of unfinished ones are
        left out. Raises `Interrupted` where something could not be uploaded: all that
        is finished stays here for the next start.
        """
        if self.url is None:
            return
        with self._changes:
            chosen = {self._name(path) for path in paths}
            here = chosen or set(self._files()) | self._sent.files.keys()
            for name in sorted(here & self._sent.files.keys()):
                if not (self.folder / name).is_file():
                    self._remove(name)
            for name in self._changed(here):
                self._upload(name)

    def withdraw(self, path: Path) -> None:
        """Removes a file from the bucket alone; it is sent when it is written again.

        For a record that says "complete" of a file that is about to be replaced.
        """
        if self.url is None:
            return
        with self._changes:
            known = self._sent.files.get(name := self._name(path))
            if known and known.version is not None:
                self._remove(name)
                if path.is_file():
                    now = path.stat()
                    self._sent.note(name, Known(now.st_size, now.st_mtime_ns, None))

    def is_stand_in(self, path: Path) -> bool:
        """Whether a file has the size of the one in the bucket, and no content."""
        if self.url is None:
            return False
        known = self._sent.files.get(self._name(path))
        return known is not None and known.stand_in and known.is_still(path)

    def bring(self, *paths: Path) -> None:
        """Gets the content of those that are stand-ins. Raises `BadData`."""
        if self.url is None:
            return
        with self._changes, self._written():
            self._bring([self._name(path) for path in paths if self.is_stand_in(path)])

    def drop(self, *paths: Path) -> None:
        """Makes stand-ins of files that the bucket has: frees their room here."""
        if self.url is None:
            return
        with self._changes:
            for path in paths:
                known = self._sent.files.get(name := self._name(path))
                if known and known.version is not None and known.is_still(path):
                    self._sent.make_stand_in(path, name, known.size, known.version)

    def refresh(self) -> None:
        """Brings in what other machines have written since, as at the start."""
        if self.url is None:
            return
        with self._changes, self._written():
            self._open()

    def close(self) -> None:
        """Sends all and removes the folder. Raises `Interrupted` as `send`."""
        if self.url is None:
            return
        try:
            self.send()
            shutil.rmtree(self._home / "files", ignore_errors=True)
            self._sent.path.unlink(missing_ok=True)
        finally:
            self.release()

    def release(self) -> None:
        """Lets another program of this machine write to the URL."""
        if self._lock:
            self._lock.close()

    # What follows is of URLs alone.

    def _open(self) -> None:
        """Compares what is here with the bucket, and makes it the same."""
        self._sent = Sent(self._home / "sent.jsonl")
        there = self._bucket.listed(self._ours, self._flat)
        waiting = []
        for path in self.folder.rglob(".*"):
            if is_unfinished(path.name):
                path.unlink()  # of a program that was killed
        for name in self._files():
            path, known = self.folder / name, self._sent.files.get(name)
            now = there[name].version if name in there else None
            if now != (known.version if known else None):
                path.unlink()  # another machine wrote or removed it
            elif known is None or not known.is_still(path):
                waiting.append(name)
            elif known.version is None:
                path.unlink()  # withdrawn, and not written again
        for name in self._sent.files.keys() - there.keys() - set(waiting):
            del self._sent.files[name]
        self._sent.save()
        if waiting:
            print(
                f"{self.url}: uploads {len(waiting)} files that were finished before",
                file=sys.stderr,
                flush=True,
            )
            for name in self._changed(waiting):
                self._upload(name)
        for name, one in there.items():
            if not (path := self.folder / name).is_file():
                self._sent.make_stand_in(path, name, one.size, one.version)
        stand_ins = [n for n, known in self._sent.files.items() if known.stand_in]
        self._bring([name for name in stand_ins if self._is_needed(name)])

    def _files(self) -> list[str]:
        """The finished files of the folder."""
        paths = [Path(place) / f for place, _, fs in os.walk(self.folder) for f in fs]
        return sorted(name for path in paths if self._ours(name := self._name(path)))

    def _ours(self, name: str) -> bool:
        file = name.rpartition("/")[2]
        if is_unfinished(file) or file.startswith(".writable"):
            return False
        return self._wanted(name)

    def _changed(self, among: Sequence[str] | set[str]) -> list[str]:
        """The files to upload, in the order in which they were finished."""
        found = []
        for name in among:
            path, known = self.folder / name, self._sent.files.get(name)
            if self._ours(name) and path.is_file():
                if known is None or not known.is_still(path):
                    found.append((path.stat().st_mtime_ns, name))
        return [name for _, name in sorted(found)]

    def _upload(self, name: str) -> None:
        local = self.folder / name
        try:
            before = local.stat()
        except FileNotFoundError:
            return
        with self._answering():
            there = self._bucket.upload(name, local)
        # A journal may have grown meanwhile: then it has another size than this.
        self._sent.note(name, Known(there.size, before.st_mtime_ns, there.version))

    def _remove(self, name: str) -> None:
        with self._answering():
            self._bucket.remove(name)
        self._sent.note(name, None)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except BadData as error:
            self.failed = True
            raise Interrupted(f"{error}; {_LATER}") from error

    def _bring(self, chosen: Sequence[str]) -> None:
        if not chosen:
            return
        needed = sum(self._sent.files[name].size for name in chosen)
        check_room(self._cache, needed, f"{self.url}: what is there")

        def get(name: str) -> tuple[str, Known]:
            known, local = self._sent.files[name], self.folder / name
            self._bucket.download(name, known.size, local)
            return name, Known(known.size, local.stat().st_mtime_ns, known.version)

        with ThreadPoolExecutor(TOGETHER) as pool:
            for name, known in pool.map(get, chosen):
                self._sent.note(name, known)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _written(self) -> AbstractContextManager[None]:
        return written_in(self._cache, f"files for {self.url}")


@contextmanager
def staged(
    place: str | os.PathLike,
    cache_dir: Path | None = None,
    *,
    bring: Callable[[str], bool] = lambda name: True,
    wanted: Callable[[str], bool] = lambda name: True,
    part: str = "",
    flat: bool = False,
) -> Iterator[Staging]:
    """Yields the `Staging` of an output, whose arguments these are; closes it.

    Messages of mistakes that are raised within name the URL. What was finished before
    them is uploaded as well.
    """
    with names.urls_in_errors():
        stage = Staging(
            place, cache_dir, bring=bring, wanted=wanted, part=part, flat=flat
        )
        try:
            yield stage
        except Exception as error:
            try:
                if not stage.failed:
                    stage.send()
            except Interrupted as failed:
                line = names.with_urls(one_line(error))
                print(f"error: {line}", file=sys.stderr, flush=True)
                raise failed from error
            finally:
                stage.release()
            raise
        except BaseException:
            stage.release()
            raise
        stage.close()
