"""Reads the types of arrays in the text of a compiled program (HLO)."""

import re

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
# Layouts and comments contain numbers and brackets too.
_COMMENTS_AND_LAYOUTS = re.compile(r"\{[^{}]*\}|/\*.*?\*/")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


def arrays_of(type_text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Returns (element type, shape) of each array of a type's text."""
    plain = _COMMENTS_AND_LAYOUTS.sub("", type_text)
    return [
        (name, tuple(int(n) for n in sizes.split(",") if n))
        for name, sizes in _ARRAY.findall(plain)
    ]


def bits_of(element: str) -> int:
    """Returns the size of an element type; 0 for what is no array, such as a token."""
    if element in _BITS:
        return _BITS[element]
    digits = re.match(r"[a-z]+(\d+)", element)
    return int(digits[1]) if digits else 0
