"""A compiled program's text in; what its devices say to each other out."""

import math
import re
from dataclasses import dataclass

KINDS = (
    "collective-permute",
    "all-reduce",
    "reduce-scatter",
    "all-gather",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One exchange of a step, as each device sees it."""

    kind: str  # one of KINDS
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (type, shape) of what it yields
    source: str  # the operation of the model that it comes from

    @property
    def bytes(self) -> int:
        """Of its results on one device."""
        return sum(_bits(kind) * math.prod(shape) // 8 for kind, shape in self.arrays)

    def __str__(self) -> str:
        shapes = ", ".join(f"{t}[{','.join(map(str, s))}]" for t, s in self.arrays)
        return f"{self.kind} of {shapes} in {self.source}"


def collectives_of(hlo: str) -> list[Collective]:
    """All of a compiled module's text, in its order; one inside a loop counts once."""
    found = []
    for line in hlo.splitlines():
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        result, kind, start = match.groups()
        # Layouts and comments have numbers and brackets of their own.
        plain = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", result)
        arrays = tuple(
            (name, tuple(int(n) for n in sizes.split(",") if n))
            for name, sizes in _SHAPE.findall(plain)
        )
        if start and kind in ("collective-permute", "all-gather"):
            # (what goes in, what comes out, contexts): several at once if combined.
            arrays = tuple(each for each in arrays if each[1])
            arrays = arrays[len(arrays) // 2 :]
        source = _SOURCE.search(line)
        found.append(Collective(kind, arrays, source[1] if source else "?"))
    return found


def _bits(name: str) -> int:
    if name in _BITS:
        return _BITS[name]
    digits = re.match(r"[a-z]+(\d+)", name)
    return int(digits[1]) if digits else 0
