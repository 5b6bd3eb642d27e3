"""A traced program as a flat list of operations on numbered arrays, nothing compiled.

Calls are inlined, the branch of a choice by platform is the one that will run, equal
operations are one, and what nothing depends on is left out: as XLA begins too.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

KEY_BYTES = 8  # of a random key
LOOPS = ("scan", "while", "cond")
# Inlined with an identity of their own: computed again, not joined with the first time.
AGAIN = ("checkpoint", "remat", "remat2")
# One array under another name.
NAMES = (
    "reshape",
    "squeeze",
    "expand_dims",
    "copy",
    "reshard",
    "sharding_constraint",
    "optimization_barrier",
)


@dataclass(frozen=True)
class Operation:
    """One operation; arrays are numbers, positions in `Program.bytes`."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bodies: tuple[Any, ...] = ()  # jaxprs of a loop or a choice at run time


@dataclass
class Program:
    """Operations in the order they are traced; `arguments` come first in `bytes`."""

    platform: str
    bytes: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    arguments: int = 0
    results: set[int] = field(default_factory=set)


def flattened(traced: Any, platform: str) -> Program:
    """Returns the operations of a `ClosedJaxpr` as `platform` ("cpu", "cuda") runs."""
    program = Program(platform)
    reader = _Reader(program)
    jaxpr = traced.jaxpr
    known: dict[Any, Any] = {
        v: reader.new(v.aval) for v in (*jaxpr.constvars, *jaxpr.invars)
    }
    program.arguments = len(program.bytes)
    reader.read(jaxpr, known, 0)
    results = [v for v in jaxpr.outvars if not isinstance(v, core.Literal)]
    needed = program.results = {known[v] for v in results if isinstance(known[v], int)}
    needed, kept = set(needed), []
    for operation in reversed(program.operations):
        if needed.intersection(operation.outputs):
            kept.append(operation)
            needed.update(operation.inputs)
    program.operations = kept[::-1]
    return program


@dataclass(frozen=True)
class _Choice:
    """The branch that this platform takes, known before the program runs."""

    branch: int


class _Reader:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.seen: dict[Any, tuple[int, ...]] = {}
        self.copies = 0

    def new(self, aval: Any) -> int:
        shape = tuple(getattr(aval, "shape", ()))
        dtype = getattr(aval, "dtype", None)
        size = getattr(dtype, "itemsize", KEY_BYTES)
        if self.program.platform == "cpu" and dtype == jnp.bfloat16:
            size = 4  # XLA for CPUs computes it, and keeps it, in float32
        self.program.shapes.append(shape)
        self.program.bytes.append(math.prod(shape) * size)
        return len(self.program.bytes) - 1

    def read(self, jaxpr: Any, known: dict[Any, Any], copy: int) -> None:
        """Appends the operations; `known` is the number (or choice) of each variable.

        A literal has no number. `copy` tells what is computed again.
        """

        def value(variable: Any) -> Any:
            return None if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            name, inputs = equation.primitive.name, list(map(value, equation.invars))
            outputs = equation.outvars
            choice = next((x for x in inputs if isinstance(x, _Choice)), None)
            if name == "platform_index":
                known[outputs[0]] = self._choice(equation.params["platforms"])
            elif name == "cond" and isinstance(inputs[0], _Choice):
                body = equation.params["branches"][inputs[0].branch].jaxpr
                self._call(body, inputs[1:], outputs, known, copy)
            elif choice is not None:  # clamped or converted, it is the same choice
                known.update(dict.fromkeys(outputs, choice))
            elif name not in LOOPS and (body := _body(equation.params)) is not None:
                if name in AGAIN and self.program.platform != "cpu":
                    self.copies += 1  # XLA for CPUs joins it with the first time
                    self._call(body, inputs, outputs, known, self.copies)
                else:
                    self._call(body, inputs, outputs, known, copy)
            elif name in NAMES:
                for old, new in zip(inputs, outputs, strict=False):
                    known[new] = old
            else:
                self._operation(equation, name, inputs, known, copy)

    def _choice(self, platforms: Any) -> _Choice:
        for i, group in enumerate(platforms):
            if group is None or self.program.platform in group:
                return _Choice(i)
        return _Choice(len(platforms) - 1)

    def _call(
        self, body: Any, inputs: list, outputs: Any, known: dict, copy: int
    ) -> None:
        inner = dict(zip(body.invars, inputs, strict=True))
        inner.update(dict.fromkeys(body.constvars))
        self.read(body, inner, copy)
        for outside, inside in zip(outputs, body.outvars, strict=True):
            literal = isinstance(inside, core.Literal)
            known[outside] = None if literal else inner[inside]

    def _operation(
        self, equation: Any, name: str, inputs: list, known: dict, copy: int
    ) -> None:
        bodies = _bodies(equation.params) if name in LOOPS else ()
        same = None
        if not bodies:
            operands = (
                str(v) if x is None else x
                for x, v in zip(inputs, equation.invars, strict=True)
            )
            result = str(equation.outvars[0].aval) if equation.outvars else ""
            same = (name, *operands, str(equation.params), result, copy)
            if same in self.seen:
                known.update(zip(equation.outvars, self.seen[same], strict=True))
                return
        outputs = tuple(self.new(v.aval) for v in equation.outvars)
        if same is not None:
            self.seen[same] = outputs
        numbers = tuple(dict.fromkeys(x for x in inputs if x is not None))
        self.program.operations.append(Operation(name, numbers, outputs, bodies))
        known.update(zip(equation.outvars, outputs, strict=True))


def _body(params: dict[str, Any]) -> Any:
    """The jaxpr of an operation that is a call, or None."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in params:
            found = params[name]
            return getattr(found, "jaxpr", found)
    return None


def _bodies(params: dict[str, Any]) -> tuple[Any, ...]:
    leaves = jax.tree.leaves(
        [params.get(x) for x in ("jaxpr", "body_jaxpr", "branches")],
        is_leaf=lambda x: hasattr(x, "jaxpr"),
    )
    return tuple(x for x in leaves if hasattr(x, "jaxpr"))
