"""Remembers which files of a local folder the bucket has: sent.jsonl."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from attunet_jax.files import replacing, write_text
from attunet_jax.storage.journal import entries


@dataclass(frozen=True)
class Known:
    """How a file was when it was the same here and in the bucket."""

    size: int
    mtime_ns: int
    version: str | None  # the bucket's; None where it was removed there alone
    stand_in: bool = False  # here without its content

    def is_still(self, path: Path) -> bool:
        """Whether the file here was not written since."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


class Sent:
    """The files by their names, and the journal they are kept in."""

    def __init__(self, path: Path) -> None:
        """Reads the journal: the last line of each file counts."""
        self.path = path
        self.files: dict[str, Known] = {}
        for name, entry in entries(path):
            self.files.pop(name, None)
            try:
                if entry:
                    self.files[name] = Known(**entry)
            except TypeError:  # not one of ours
                continue

    def make_stand_in(self, path: Path, name: str, size: int, version: str) -> None:
        """Makes a file of this size that takes no room."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                file.truncate(size)
            mtime_ns = temporary.stat().st_mtime_ns
            # Known before it is there: its zeros are never taken for content.
            self.note(name, Known(size, mtime_ns, version, stand_in=True))

    def note(self, name: str, known: Known | None) -> None:
        """Remembers a file; with None, that it is neither here nor there."""
        if known is None:
            self.files.pop(name, None)
        else:
            self.files[name] = known
        entry = {"name": name} | (asdict(known) if known else {})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Writes the journal anew, a line for each file."""
        rows = [{"name": name} | asdict(known) for name, known in self.files.items()]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
