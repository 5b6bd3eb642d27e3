"""The objects of a bucket below one URL, each by its name, as if files of a folder."""

from collections.abc import Callable
from pathlib import Path

from attunet_jax.errors import BadData
from attunet_jax.storage import transfer, urls


class Objects:
    """Lists, reads, writes and removes them. Raises `BadData` where it cannot."""

    def __init__(self, url: str) -> None:
        self.url, self._base = url, urls.within(url)
        self._fs = urls.filesystem(url)

    def listed(
        self, wanted: Callable[[str], bool], flat: bool = False
    ) -> dict[str, transfer.Object]:
        """Returns those that are `wanted` by their names and can be files.

        With `flat` nothing below folders is listed.
        """
        with urls.answering(self.url):
            rows = transfer.listed(self._fs, self._base, flat)
        found = {}
        for path, row in sorted(rows.items()):
            name = path[len(self._base) + 1 :]
            if not name and row["size"]:
                raise BadData(f"{self.url}: is a file, name a folder")
            parts = name.split("/")
            if {"", ".", ".."} & set(parts) or "\0" in name or not wanted(name):
                continue
            parents = {"/".join(parts[:i]) for i in range(1, len(parts))}
            if not parents & found.keys():
                found[name] = transfer.object_of(row)
        return found

    def download(self, name: str, size: int, local: Path) -> None:
        path, url = self._place(name)
        transfer.download(self._fs, path, size, local, url)

    def upload(self, name: str, local: Path) -> transfer.Object:
        return transfer.upload(self._fs, local, *self._place(name))

    def remove(self, name: str) -> None:
        transfer.remove(self._fs, *self._place(name))

    def _place(self, name: str) -> tuple[str, str]:
        """BUCKET/KEY and URL."""
        return f"{self._base}/{name}", f"{self.url}/{name}"
