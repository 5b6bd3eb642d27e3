"""Cuts TensorBoard's event files back to a step, so that no step is in them twice.

A file is a row of records: the length in 8 bytes, its checksum in 4, the event, its
checksum in 4. TensorBoard can be told to hide what a resumed run repeats; other readers
see all of it.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto import event_pb2

from attunet_jax.files import replacing

_Event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]


def drop_events_after(folder: Path, step: int) -> None:
    """Rewrites the files in `folder` without later steps and what a kill cut short."""
    for path in sorted(folder.glob("events.out.*")):
        content = path.read_bytes()
        kept = b"".join(
            record for record in _records(content) if _step_of(record) <= step
        )
        if kept != content:
            with replacing(path) as temporary:
                temporary.write_bytes(kept)


def _step_of(record: bytes) -> float:
    try:
        return _Event.FromString(record[12:-4]).step
    except Exception:  # noqa: BLE001 - protobuf's own kinds: the record is damaged
        return math.inf


def _records(content: bytes) -> Iterator[bytes]:
    """Yields the whole records of a file."""
    start = 0
    while start + 16 <= len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        end = start + 16 + length
        if end > len(content):
            return
        yield content[start:end]
        start = end
