"""Parses the text of a program that XLA compiled: computations of instructions."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from attunet_jax.train.hlo_types import arrays_of, bits_of

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(|\{).*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|(?:true|false)_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str  # as text: "f32[2,3]{1,0}", or several in parentheses
    operation: str
    operands: tuple[str, ...]  # names
    argument: str  # what stands in the operation's parentheses
    attributes: str  # what follows it
    is_root: bool

    @property
    def bytes(self) -> int:
        """Size of its results."""
        return nbytes(self.type)

    @property
    def source(self) -> str:
        """The operation of the model that it is part of; empty where XLA names none."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1].partition(";")[0] if match else ""

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        found = []
        for one, several in _CALLED.findall(self.attributes):
            found += [one] if one else re.findall(r"[\w.\-]+", several)
        return found


@dataclass
class Computation:
    """Instructions in the order in which they are written, operands first."""

    is_entry: bool
    lines: list[Instruction] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {line.name: line for line in self.lines}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that read it."""
        found: dict[str, list[Instruction]] = defaultdict(list)
        for line in self.lines:
            for name in dict.fromkeys(line.operands):
                found[name].append(line)
        return found

    @cached_property
    def makers(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that it reads."""
        return {
            line.name: [self.by_name[n] for n in line.operands if n in self.by_name]
            for line in self.lines
        }

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {
            int(line.argument): line
            for line in self.lines
            if line.operation == "parameter"
        }

    @property
    def root(self) -> Instruction:
        return next((line for line in self.lines if line.is_root), self.lines[-1])


def computations(hlo: str) -> dict[str, Computation]:
    """Returns all computations of a module's text by name."""
    found: dict[str, Computation] = {}
    current = None
    for line in hlo.splitlines():
        if line[:1] in ("", "}"):
            current = None
        elif line[:1] not in " \t" and (match := _COMPUTATION.match(line)):
            current = found[match[2]] = Computation(bool(match[1]))
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.lines.append(_instruction(match, line[match.end() :]))
    return found


def nbytes(type_text: str) -> int:
    """Returns the bytes of all arrays of a type's text."""
    return sum(
        -(-bits_of(name) * math.prod(shape) // 8)
        for name, shape in arrays_of(type_text)
    )


def layout_of(type_text: str) -> str:
    """Returns the order of a type's axes in memory, the fastest first: "2,1,0"."""
    match = re.search(r"\]\{([\d,]*)", type_text)
    return match[1] if match else ""


def _instruction(match: re.Match[str], text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opening = text.index("(", end)
    closing = _closing(text, opening)
    argument = text[opening + 1 : closing]
    return Instruction(
        name=match[2],
        type=text[:end],
        operation=text[end:opening].strip(),
        operands=tuple(re.findall(r"%([\w.\-]+)", argument)),
        argument=argument,
        attributes=text[closing + 1 :],
        is_root=bool(match[1]),
    )


def _closing(text: str, opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)
