"""Knows which local folder stands for which URL, so that messages name the URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData

_urls: dict[str, str] = {}  # local folder or file -> URL


def stands_for(local: Path, url: str) -> None:
    """Notes that `local`, a folder or file, stands for `url` in this process."""
    for place in {local, local.resolve()}:
        _urls[str(place)] = url.rstrip("/")


def known() -> dict[str, str]:
    """Returns all of `stands_for`: local folder or file -> URL."""
    return dict(_urls)


def shown(place: str | os.PathLike) -> str:
    """Returns the name by which the user knows a path: the URL it stands for."""
    text = str(place)
    for local in sorted(_urls, key=len, reverse=True):
        if text == local or text.startswith(local + os.sep):
            return _urls[local] + text[len(local) :]
    return text


def lies_within(place: Path, folder: Path) -> bool:
    """Whether a place is in a folder, or is it; by URLs where they stand for such."""
    inner, outer = (Path(shown(path.resolve())) for path in (place, folder))
    return inner.is_relative_to(outer)


def with_urls(text: str) -> str:
    """Returns `text` with URLs in the place of the folders that stand for them."""
    for local in sorted(_urls, key=len, reverse=True):
        text = text.replace(local, _urls[local])
    return text


@contextmanager
def urls_in_errors() -> Iterator[None]:
    """Puts URLs into the messages of the mistakes that are raised within."""
    try:
        yield
    except (BadArguments, BadData) as error:
        raise type(error)(with_urls(str(error))) from error
