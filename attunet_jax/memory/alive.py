"""Bytes of a program's arrays that are alive at once, without compiling it.

Counted are the arrays that a fusing compiler writes to memory: what convolutions,
products, reductions, concatenations, gathers and loops read and write. Elementwise
operations between them are fused: their results are computed again wherever they are
read, unless that keeps more bytes alive than the result has (a mask instead of the
activation it is made from). Not counted: workspaces of convolutions, changes of layout,
fragmentation.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from attunet_jax.memory.program import Operation, Program, flattened

FUSED = frozenset(
    """
    abs add add_any and bitcast_convert_type broadcast_in_dim cbrt ceil clamp
    convert_element_type cos div eq erf erf_inv exp expm1 floor ge gt integer_pow iota
    is_finite le log log1p logistic lt max min mul ne neg nextafter not or pad pow
    reduce_precision rem rev round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin slice sqrt square stop_gradient sub tan tanh transpose
    xor
    """.split()
)
# Read what they reduce while it is made.
FUSES_ITS_INPUT = ("reduce_", "argmax", "argmin", "concatenate")


@dataclass(frozen=True)
class Alive:
    """What is alive at the peak besides the arguments, in bytes.

    Results that take the place of donated arguments are not counted.
    """

    bytes: int
    of_shapes: int  # of these, arrays of the shapes that were asked about


def alive_at_peak(
    traced: Any,
    platform: str,
    *,
    donated: bool = True,
    shapes: Collection[tuple[int, ...]] = (),
) -> Alive:
    """Returns the most bytes of a `ClosedJaxpr` that are alive at once on one device.

    `donated`: the results are written over arguments. `shapes` are told apart.
    """
    program = flattened(traced, platform)
    size, operations = program.bytes, program.operations
    last = _last_uses(program)
    made = {x: t for t, o in enumerate(operations) for x in o.outputs}
    change = [[0, 0] for _ in range(len(operations) + 2)]
    for x, end in last.items():
        if donated and x in program.results:
            continue
        # Its last reader writes over it, where that is elementwise.
        over = end > made[x] and operations[end].name in FUSED
        like = size[x] if program.shapes[x] in shapes else 0
        for t, sign in ((made[x], 1), (end + (not over), -1)):
            change[t][0] += sign * size[x]
            change[t][1] += sign * like
    peak, now, like = Alive(0, 0), 0, 0
    for t, operation in enumerate(operations):
        now, like = now + change[t][0], like + change[t][1]
        inside = max(
            (alive_at_peak(b, program.platform).bytes for b in operation.bodies),
            default=0,
        )
        if now + inside > peak.bytes:
            peak = Alive(now + inside, like)
    return peak


def _last_uses(program: Program) -> dict[int, int]:
    """When each array that is written is read last, by number; backwards in time."""
    size, operations = program.bytes, program.operations
    made = {x: t for t, o in enumerate(operations) for x in o.outputs}
    written = set(program.results)
    for operation in operations:
        if operation.name not in FUSED:
            written.update(operation.outputs)
            if not operation.name.startswith(FUSES_ITS_INPUT):
                written.update(operation.inputs)
    written -= set(range(program.arguments))
    last: dict[int, int] = {}
    end = len(operations) - 1
    for x in program.results & written:
        last[x] = end
    sources = _Sources(program.arguments, operations, made, written)
    for t in range(end, -1, -1):
        operation = operations[t]
        mine = [x for x in operation.outputs if x in written]
        if operation.name in FUSED and not mine:
            continue  # computed where it is read
        for x in mine:
            last.setdefault(x, t)
        for x in operation.inputs:
            if x in last or x < program.arguments:
                continue
            if x in written:
                last[x] = t
                continue
            # Keep it, or what it is computed again from?
            newly_kept = [s for s in sources.of(x) if s not in last]
            if sum(size[s] for s in newly_kept) > size[x]:
                written.add(x)
                sources.forget()
                last[x] = t
            else:
                last.update(dict.fromkeys(newly_kept, t))
    return last


class _Sources:
    """The written arrays that an array which is not written is computed from."""

    def __init__(
        self,
        arguments: int,
        operations: list[Operation],
        made: dict[int, int],
        written: set[int],
    ) -> None:
        self._arguments, self._operations = arguments, operations
        self._made, self._written = made, written
        self._known: dict[int, frozenset[int]] = {}

    def forget(self) -> None:
        self._known.clear()

    def of(self, x: int) -> frozenset[int]:
        waiting = [x]
        while waiting:  # not recursive: chains are long
            y = waiting[-1]
            inputs = self._inputs(y)
            missing = [i for i in inputs if i not in self._known]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            if y in self._written and y != x:
                self._known[y] = frozenset((y,))
            else:
                self._known[y] = frozenset().union(*(self._known[i] for i in inputs))
        return self._known[x]

    def _inputs(self, x: int) -> tuple[int, ...]:
        if x < self._arguments or x in self._written:
            return ()
        return self._operations[self._made[x]].inputs
