"""What the text of a program's own flag becomes: numbers, names, spacings.

Each function raises `ValueError` with words that follow on "--NAME=TEXT: ".
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attunet_jax.config_fields import BOOLEANS
from attunet_jax.errors import BadArguments
from attunet_jax.files import is_url, local_path
from attunet_jax.storage.urls import check_url

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,60}")


def names(text: str) -> list[str]:
    """Splits `a,b` into its words; quotes around them are dropped."""
    words = (word.strip(" '\"") for word in text.split(","))
    return [word for word in words if word]


def names_of(
    known: Iterable[str], *, may_be_empty: bool = False
) -> Callable[[str], tuple[str, ...]]:
    """Returns a function that splits `a,b` into known names, each once."""
    allowed = tuple(known)

    def parse(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(names(text)))
        if set(given) - set(allowed) or not (given or may_be_empty):
            raise ValueError(f"must be of {', '.join(allowed)}")
        return given

    return parse


def named_folders(text: str) -> tuple[tuple[str, Path | str], ...]:
    """Splits `NAME:FOLDER,NAME:FOLDER`: folders that are read, here or in buckets.

    A name may be that of a folder.
    """
    found = []
    for word in filter(None, text.split(",")):
        name, colon, folder = word.partition(":")
        if not (colon and folder and _FOLDER_NAME.fullmatch(name.strip())):
            raise ValueError("must be NAME:FOLDER, or several with commas between")
        place = readable(folder)
        assert place is not None
        found.append((name.strip(), place))
    if len({name for name, _ in found}) < len(found):
        raise ValueError("has a name twice")
    return tuple(found)


def positive(text: str) -> int:
    """Turns the text into a whole number of 1 or more."""
    if (value := whole_number(text)) < 1:
        raise ValueError("must be 1 or more")
    return value


def spacing_mm(text: str) -> tuple[float, float, float]:
    """Turns `2` or `2,1.5,1.5` into the spacing D, H, W in mm."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(0.1 <= value <= 50 for value in values):
        raise ValueError("must be one or three numbers from 0.1 to 50")
    return values[0], values[1], values[2]


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def positive_number(text: str) -> float:
    """Turns the text into a number above 0."""
    if not (value := number(text)) > 0:
        raise ValueError("must be above 0")
    return value


def boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError("must be true or false")
    return BOOLEANS[text.lower()]


def path(text: str) -> Path | None:
    """Turns the text into a path of this machine; nothing into None."""
    if not text:
        return None  # Path("") would be the current folder
    try:
        return local_path(text)
    except BadArguments as error:
        raise ValueError(str(error).removeprefix(f"{text}: ")) from None


def _place(text: str, schemes: tuple[str, ...]) -> Path | str | None:
    if not is_url(text):
        return Path(text) if text else None
    try:
        check_url(text, schemes)
    except BadArguments as error:
        raise ValueError(str(error).removeprefix(f"{text}: ")) from None
    return text.rstrip("/")


def readable(text: str) -> Path | str | None:
    """Turns the text into what is read: a path of this machine, or a URL as text."""
    return _place(text, ("gs", "s3"))


def writable(text: str) -> Path | str | None:
    """Turns the text into what is written: a path of this machine, or a URL."""
    return _place(text, ("gs", "s3"))


def workdir(text: str) -> Path | str | None:
    """Turns the text into the folder of a run: a path of this machine, or gs://."""
    if text.startswith("s3://"):
        raise ValueError(
            "checkpoints cannot be written to s3://: name gs://, or a folder of a "
            "mounted file system (FSx for Lustre, EFS)"
        )
    return _place(text, ("gs",))


@dataclass(frozen=True)
class Words:
    """The words without a flag of a command line."""

    name: str  # of their list in the values
    shown: str  # what --help calls one
    at_least: int
    help: str

    def line(self) -> str:
        return f"{self.shown}: {self.help} ({self.at_least} or more)"

    def check(self, words: list[str]) -> list[str]:
        """Returns the words: places, or NAME=PLACE.

        Raises `BadArguments` for too few, or a URL that cannot be one here.
        """
        if len(words) < self.at_least:
            raise BadArguments(
                f"{len(words)} {self.shown} given, {self.at_least} or more are needed "
                "(--help shows an example)"
            )
        for word in words:
            if not word:
                raise BadArguments(f"{self.shown} '': must be the name of a folder")
            place = word if is_url(word) else word.partition("=")[2]
            if is_url(place):
                check_url(place)
        return words


KINDS: dict[Any, Callable[[str], Any]] = {
    Path: path,
    int: whole_number,
    float: number,
    bool: boolean,
}
