"""What people call the values of a label map: --labels, dataset.json, labels.json."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, BadData

# The name, in --labels and dataset.json, of values that say nothing about a voxel.
IGNORE = "ignore"


def as_identifier(name: str) -> str:
    """A label's name in the form that --labels accepts."""
    plain = unicodedata.normalize("NFC", name.strip())
    plain = "".join(c if f"a{c}".isidentifier() else "_" for c in plain)
    return plain if plain.isidentifier() else f"label_{plain}"


def parse_organs(text: str) -> dict[str, tuple[int, ...]]:
    """Parses `spleen=1,pancreas=7,kidney=2+3` to organ -> label values in the files.

    Raises `BadArguments` quoting the part that is wrong.
    """
    organs: dict[str, tuple[int, ...]] = {}
    used: dict[int, str] = {}
    for part in text.split(","):
        name, _, values = part.strip().partition("=")
        try:
            numbers = tuple(int(v) for v in values.split("+"))
        except ValueError:
            numbers = ()
        if not name.isidentifier() or not numbers or min(numbers) < 1:
            raise BadArguments(
                f"--labels: {part.strip()!r} is not NAME=VALUE or NAME=VALUE+VALUE "
                "with whole values above 0"
            )
        if name == "background":
            raise BadArguments("--labels: 'background' cannot be the name of an organ")
        if name in organs:
            raise BadArguments(f"--labels: {name!r} is named twice")
        for number in numbers:
            if number in used:
                raise BadArguments(
                    f"--labels: value {number} is both {used[number]} and {name}"
                )
            used[number] = name
        organs[name] = numbers
    return organs


def named_values(
    path: Path, labels: Any
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Returns organ -> label values, and the values to ignore."""
    if not isinstance(labels, Mapping) or not labels:
        raise BadData(f'{path}: "labels" is {shortened(labels)}, not names and values')
    organs: dict[str, tuple[int, ...]] = {}
    for name, value in _by_name(path, labels):
        values = tuple(_whole(v) for v in (value if type(value) is list else [value]))
        if name.strip().lower() == "background":
            if values != (0,):
                raise BadData(f"{path}: background is {value!r}, but must be 0")
            continue
        if not values or None in values or min(values) < 1:  # pyright: ignore
            raise BadData(
                f"{path}: label {name!r} has the value {shortened(value)}; whole "
                "numbers above 0 are read"
            )
        plain = as_identifier(name)
        if plain in organs:
            raise BadData(f"{path}: two labels would be named {plain}; rename one")
        organs[plain] = tuple(dict.fromkeys(values))  # pyright: ignore
    ignored = organs.pop(IGNORE, ())
    if not organs:
        raise BadData(f'{path}: "labels" names no organ, only {shortened(labels)}')
    return organs, ignored


def _by_name(path: Path, labels: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(name, value) of each label, whichever of the two the file has in front."""
    in_front = all(_whole(key) is not None for key in labels)
    if not in_front:
        return [(str(name), value) for name, value in labels.items()]
    if any(not isinstance(v, str) or _whole(v) is not None for v in labels.values()):
        raise BadData(
            f'{path}: "labels" is {shortened(labels)}: which are names, which values?'
        )
    return [(name, key) for key, name in sorted(labels.items(), key=_value_in_front)]


def _value_in_front(item: tuple[str, Any]) -> int:
    return int(item[0])


def _whole(value: Any) -> int | None:
    """The whole number that a value of JSON is, also as text; None where it is none."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdigit() else None
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
