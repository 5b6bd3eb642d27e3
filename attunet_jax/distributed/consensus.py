"""Checks made by all processes before a step, whose errors are raised in each.

If one process refused its arguments while the others continued, they would wait for it
without end.
"""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from attunet_jax.errors import BadArguments, BadData, one_line

Result = TypeVar("Result")
# How often processes tell each other that one of them is still at work.
WAIT_S = 2.0


def gather_texts(text: str) -> list[str]:
    """Returns the text of every process, in their order; a collective."""
    if jax.process_count() == 1:
        return [text]
    encoded = np.frombuffer(text.encode(), np.uint8)
    sizes = _gather(np.array([encoded.size], np.int32)).ravel()
    row = np.zeros(max(int(sizes.max()), 1), np.uint8)
    row[: encoded.size] = encoded
    rows = _gather(row)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def gather_host_names() -> list[str]:
    """Returns the host name of every process."""
    return gather_texts(socket.gethostname())


def raise_on_all(check: Callable[[], Result], *, may_be_long: bool = False) -> Result:
    """Returns `check()` of this process, unless that of any process raises.

    `check` must not need the others. One that `may_be_long` runs in a thread, while the
    processes tell each other that they wait: collectives end after half a minute.
    Raises the first process's `BadArguments` or `BadData` in all, with the process's
    name if not all raise the same.
    """
    result: Any = None
    error = None
    try:
        result = _meanwhile_waiting(check) if may_be_long else check()
    except (BadArguments, BadData, OSError) as raised:
        error = raised
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return result
    own = None if error is None else _kind_and_line(error)
    errors, hosts = _gather_json([own, socket.gethostname()])
    failed = [process for process, error in enumerate(errors) if error]
    if not failed:
        return result
    kind, line = errors[failed[0]]
    if any(error != [kind, line] for error in errors):
        line = f"process {failed[0]} ({hosts[failed[0]]}): {line}"
    raise {"arguments": BadArguments, "data": BadData}[kind](line)


def _meanwhile_waiting(check: Callable[[], Result]) -> Result:
    """Returns `check()` when that of every process has ended."""
    if jax.process_count() == 1:
        return check()
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(check)
        while "" in gather_texts("ended" if task.done() else ""):
            if task.done():
                time.sleep(WAIT_S)
            else:
                wait([task], timeout=WAIT_S)
    return task.result()


def assert_equal_across_processes(values: Mapping[str, Any]) -> None:
    """Raises `BadArguments` in all processes if a value differs among them.

    `values` are JSON-able, by names that a user understands.
    """
    if jax.process_count() == 1:
        return
    checksums, hosts = _gather_json(
        [{name: _checksum(x) for name, x in values.items()}, socket.gethostname()]
    )
    first = checksums[0]
    for process, other in enumerate(checksums):
        for name, checksum in other.items():
            if checksum != first.get(name):
                raise BadArguments(
                    f"{name}: process {process} ({hosts[process]}) has another than "
                    f"process 0 ({hosts[0]}), by its checksum {checksum[:12]} against "
                    f"{first.get(name, '')[:12]}: start all processes alike"
                )


def _gather_json(pair: list[Any]) -> tuple[list[Any], list[Any]]:
    """The first and the second of every process's pair, in their order."""
    pairs = [json.loads(text) for text in gather_texts(json.dumps(pair))]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _kind_and_line(error: Exception) -> list[str]:
    kind = "arguments" if isinstance(error, BadArguments) else "data"
    text = one_line(error)
    if isinstance(error, OSError):
        text = f"{error.filename or ''}: {error.strerror or text}"
    return [kind, text]


def _checksum(thing: Any) -> str:
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()


def _gather(row: np.ndarray) -> np.ndarray:
    """`[n]` of each process to `[processes, n]`."""
    return np.asarray(multihost_utils.process_allgather(row))
