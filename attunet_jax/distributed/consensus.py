"""What each process found by itself in, what all of them know out, before a step.

One process that refuses its arguments while the others go on would leave them waiting
for it: here all learn of it, and all raise the same.
"""

import hashlib
import json
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from attunet_jax.errors import BadArguments, BadData, one_line

Result = TypeVar("Result")


def texts_of_all(text: str) -> list[str]:
    """The text of every process, in their order; a collective of all of them."""
    if jax.process_count() == 1:
        return [text]
    words = np.frombuffer(text.encode(), np.uint8)
    sizes = _gathered(np.array([words.size], np.int32)).ravel()
    row = np.zeros(max(int(sizes.max()), 1), np.uint8)
    row[: words.size] = words
    rows = _gathered(row)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def hosts_of_all() -> list[str]:
    """The host's name of every process."""
    return texts_of_all(socket.gethostname())


def checked_by_all(check: Callable[[], Result]) -> Result:
    """`check()` of this process; what any of them raises is raised in all.

    `check` must not need the others. Raises the first process's `BadArguments` or
    `BadData`, with the process's name where not all found the same.
    """
    try:
        result, error = check(), None
    except (BadArguments, BadData, OSError) as found:
        result, error = None, found
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return result  # pyright: ignore[reportReturnType]
    told = "" if error is None else _told(error)
    said = [
        json.loads(text)
        for text in texts_of_all(json.dumps([told, socket.gethostname()]))
    ]
    wrong = [i for i, (told, _) in enumerate(said) if told]
    if not wrong:
        return result  # pyright: ignore[reportReturnType]
    kind, line = said[wrong[0]][0]
    if any(told != [kind, line] for told, _ in said):
        line = f"process {wrong[0]} ({said[wrong[0]][1]}): {line}"
    raise {"arguments": BadArguments, "data": BadData}[kind](line)


def same_for_all(things: dict[str, Any]) -> None:
    """Raises `BadArguments` in all processes where a thing differs among them.

    `things` are JAX-independent and JSON-able, by a name that a user understands.
    """
    if jax.process_count() == 1:
        return
    sums = {name: _checksum(thing) for name, thing in things.items()}
    said = [
        json.loads(text)
        for text in texts_of_all(json.dumps([sums, socket.gethostname()]))
    ]
    first, first_host = said[0]
    for i, (other, host) in enumerate(said):
        for name, checksum in other.items():
            if checksum != first.get(name):
                raise BadArguments(
                    f"{name}: process {i} ({host}) has another than process 0 "
                    f"({first_host}), by its checksum {checksum[:12]} against "
                    f"{first.get(name, '')[:12]}: start all processes alike"
                )


def _told(error: Exception) -> list[str]:
    kind = "arguments" if isinstance(error, BadArguments) else "data"
    text = one_line(error)
    if isinstance(error, OSError):
        text = f"{error.filename or ''}: {error.strerror or text}"
    return [kind, text]


def _checksum(thing: Any) -> str:
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()


def _gathered(row: np.ndarray) -> np.ndarray:
    """`[n]` of each process to `[processes, n]`."""
    return np.asarray(multihost_utils.process_allgather(row))
