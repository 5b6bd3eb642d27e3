"""The kernels of a program compiled for GPUs, and the bytes that each moves.

Bytes are those that a kernel reads and writes if no operand is in a cache: every
distinct operand once and every result once. Of an operand that is only sliced or
gathered the slices count; of a result that is written into its operand in place what is
new. Each operand and result keeps the name of the operation in the model that reads or
makes it, because XLA puts operations of several parts of a network into one kernel.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from attunet_jax.train.hlo_types import arrays_of, bits_of
from launch.compile_for.hlo import (
    Computation,
    Instruction,
    computations,
    layout_of,
)

_FREE = {  # operations that move nothing
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "constant",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "add-dependency",
}
_SLICES = {"slice", "dynamic-slice", "gather"}


@dataclass(frozen=True)
class Kernel:
    """One launch on the device: a fusion, a library's call, a copy or a message."""

    kind: str  # XLA's name of the fusion, the library's function, or the operation
    source: str  # the operation of the model that its result comes from
    moved: tuple[tuple[str, int], ...]  # (operation of the model, bytes) of each array
    transposes: bool  # whether it changes the order of axes in memory
    times: int = 1  # launches: more than one inside a loop of known length

    @property
    def bytes(self) -> int:
        """Bytes of one launch."""
        return sum(size for _, size in self.moved)


def kernels_of(hlo: str) -> list[Kernel]:
    """Returns every kernel of a compiled program's text, in the order of launch.

    A loop's kernels count as often as XLA knows that it turns, else once; of a
    conditional's branches the one that moves most counts.
    """
    bodies = computations(hlo)
    entries = [body for body in bodies.values() if body.is_entry]
    return [kernel for entry in entries for kernel in _kernels_in(entry, bodies)]


def total_bytes(kernels: Iterable[Kernel]) -> int:
    """Returns the bytes of all launches."""
    return sum(kernel.bytes * kernel.times for kernel in kernels)


def total_launches(kernels: Iterable[Kernel]) -> int:
    """Returns how many kernels are launched."""
    return sum(kernel.times for kernel in kernels)


def _kernels_in(
    computation: Computation, bodies: Mapping[str, Computation]
) -> Iterator[Kernel]:
    sources: dict[str, str] = {}  # of the kernels so far, by their names
    for line in computation.lines:
        operation = line.operation
        if operation in _FREE or operation.endswith(("-done", "-update")):
            continue
        inner = [bodies[name] for name in line.called if name in bodies]
        if operation == "while":
            turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', line.attributes)
            times = int(turns[1]) if turns else 1
            for kernel in (k for body in inner for k in _kernels_in(body, bodies)):
                yield replace(kernel, times=kernel.times * times)
        elif operation == "call":
            for body in inner:
                yield from _kernels_in(body, bodies)
        elif operation == "conditional":
            branches = [list(_kernels_in(body, bodies)) for body in inner]
            yield from max(branches, key=total_bytes, default=[])
        else:
            body = inner[0] if operation == "fusion" and inner else None
            kernel = _kernel(line, computation, body, sources)
            sources[line.name] = kernel.source
            yield kernel


def _kernel(
    line: Instruction,
    computation: Computation,
    body: Computation | None,
    sources: Mapping[str, str],
) -> Kernel:
    if body is None:
        reads = _operands_read(line, computation)
        writes = [(line.source, _result_bytes(line, reads))]
        maker = computation.by_name.get(line.operands[0]) if line.operands else None
        turns = line.operation == "transpose" or (
            line.operation == "copy"
            and maker is not None
            and layout_of(maker.type) != layout_of(line.type)
        )
    else:
        reads = _parameters_read(line, computation, body)
        writes = _results_written(body)
        turns = "transpose" in line.name  # XLA names a fusion by what decides its form
    source = (
        line.source
        or next((name for name, _ in writes if name), "")
        or _nearest_source(line.name, computation.makers, sources)
    )
    moved = tuple((name or source, size) for name, size in reads + writes if size)
    return Kernel(_kind(line), source, moved, turns)


def _kind(line: Instruction) -> str:
    if target := re.search(r'custom_call_target="([^"]*)"', line.attributes):
        layout = re.search(r"dim_labels=([^, ]+)", line.attributes)
        return target[1] + (f" {layout[1]}" if layout else "")
    if line.operation == "fusion":
        return re.sub(r"[.\d]+$", "", line.name)
    return line.operation


Moved = list[tuple[str, int]]  # (operation of the model, bytes)


def _operands_read(line: Instruction, computation: Computation) -> Moved:
    found = []
    for number, name in enumerate(dict.fromkeys(line.operands)):
        operand = computation.by_name.get(name)
        if operand is None:
            continue
        size = operand.bytes
        if number == 0 and line.operation in _SLICES:
            size = min(size, _slice_bytes(line, operand))
        found.append((line.source, size))
    return found


def _result_bytes(line: Instruction, reads: Moved) -> int:
    if line.operation.endswith("-start"):
        # Of messages in the background the operands are often among the results.
        repeated = len(arrays_of(line.type)) >= 2 * len(line.operands)
        return line.bytes - (sum(size for _, size in reads) if repeated else 0)
    if line.operation == "custom-call" and line.type.startswith("("):
        # Of a library's results those of bytes are its workspace: how large it is, the
        # library decides on the device.
        results = [a for a in arrays_of(line.type) if a[0] != "u8"]
        return sum(bits_of(name) * math.prod(shape) // 8 for name, shape in results)
    return line.bytes


def _parameters_read(
    line: Instruction, computation: Computation, body: Computation
) -> Moved:
    found = []
    for number, name in enumerate(line.operands):
        operand, parameter = computation.by_name.get(name), body.parameters.get(number)
        if operand is None or parameter is None or name in line.operands[:number]:
            continue
        size = min(operand.bytes, _bytes_used(parameter, body))
        found.append((_nearest_source(parameter.name, body.users), size))
    return found


def _bytes_used(array: Instruction, body: Computation) -> int:
    """Bytes that a fusion reads of an array: all, unless it only takes slices."""
    size = 0
    for user in body.users[array.name]:
        if user.operation == "bitcast" and not user.is_root:
            size += _bytes_used(user, body)
            continue
        is_first = user.operands[0] == array.name
        if is_first and user.operation in _SLICES:
            size += _slice_bytes(user, array)
        elif not (
            is_first and user.is_root and user.operation == "dynamic-update-slice"
        ):
            return array.bytes
    return size


def _slice_bytes(line: Instruction, operand: Instruction) -> int:
    """Bytes to read for a slice: with a stride along the fastest axis all between."""
    spans = re.search(r"slice=\{(.*?)\}", line.attributes)
    if line.operation != "slice" or spans is None:
        return line.bytes
    fastest = (layout_of(operand.type) or "0").partition(",")[0]
    strides = [
        int(stride or 1) for stride in re.findall(r"\[\d+:\d+(?::(\d+))?\]", spans[1])
    ]
    return line.bytes * strides[int(fastest)] if strides else line.bytes


def _results_written(body: Computation) -> Moved:
    root = body.root
    results = body.makers[root.name] if root.operation == "tuple" else [root]
    found = []
    for result in results:
        size = result.bytes
        if result.operation == "dynamic-update-slice":
            size = body.by_name[result.operands[1]].bytes
        own = "" if result.operation == "bitcast" else result.source
        found.append((own or _nearest_source(result.name, body.makers), size))
    return found


def _nearest_source(
    start: str,
    following: Mapping[str, list[Instruction]],
    known: Mapping[str, str] | None = None,
) -> str:
    """The operation of the model nearest to `start` among those that follow it.

    A bitcast carries the name of a neighbour, so its own does not count, and the name
    of an argument of the program only where there is no operation. `known` has names
    that go before an instruction's own.
    """
    seen, edge, argument = {start}, [start], ""
    while edge:
        reached = [each for name in edge for each in following.get(name, ())]
        for each in reached:
            source = (known or {}).get(each.name) or each.source
            if each.operation != "bitcast" and "/" in source:
                return source
            argument = argument or source
        edge = [each.name for each in reached if each.name not in seen]
        seen.update(edge)
    return argument
