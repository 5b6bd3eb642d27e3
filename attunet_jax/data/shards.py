"""Records in, an ArrayRecord file out, and records read back by their number.

A truncated ArrayRecord file claims to hold no records and says nothing more, so what
was written is counted before it appears, and again by whoever opens it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from array_record.python.array_record_module import (
    ArrayRecordReader,
    ArrayRecordWriter,
)

from attunet_jax.errors import BadData, one_line

# A record a group: random access without reading neighbours. Voxels come packed.
WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def write_shard(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes all records and returns their number; the file appears only when whole.

    Raises `OSError` where the folder cannot be written, `BadData` where writing fails
    later (a full disk); whatever `records` raises passes through.
    """
    path = Path(path)
    for left_by_a_kill in path.parent.glob(f".{path.name}.*.new"):
        left_by_a_kill.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.touch()  # the writer itself would report a bad folder only at its end
        count = 0
        writer = ArrayRecordWriter(str(beside), WRITER_OPTIONS)
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            _close(writer, path, "cannot be written; is there room for it?")
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        if (readable := count_records(beside)) != count:
            raise BadData(f"{path}: {readable} of {count} records were written")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return count


def count_records(path: str | os.PathLike) -> int:
    """Number of records in a shard; raises `BadData` where it is no ArrayRecord."""
    with _reader(path) as reader:
        return reader.num_records()


def read_record(path: str | os.PathLike, index: int) -> bytes:
    """Record number `index`; raises `BadData` where there is none or it is damaged."""
    with _reader(path) as reader:
        if not 0 <= index < reader.num_records():
            raise BadData(
                f"{path}: no record {index}, it has {reader.num_records()}: prepare "
                "the data again"
            )
        return reader.read([index])[0]


@contextmanager
def _reader(path: str | os.PathLike) -> Iterator[ArrayRecordReader]:
    if not Path(path).is_file():
        raise BadData(f"{path}: no such shard: prepare the data again")
    reader = ArrayRecordReader(str(path), READER_OPTIONS)
    try:
        yield reader
    except RuntimeError as error:
        raise damaged(path, "the shard", error) from error
    finally:
        _close(reader, path, "is damaged")


def damaged(path: str | os.PathLike, what: str, error: Exception) -> BadData:
    """What to say where the ArrayRecord library could not read a file."""
    return BadData(
        f"{path}: {what} is damaged ({one_line(error)}): prepare the data again"
    )


def _close(file: ArrayRecordReader | ArrayRecordWriter, path, problem: str) -> None:
    """Closes; the library reports most of what went wrong only here."""
    try:
        file.close()
    except RuntimeError as error:
        raise BadData(f"{path}: {problem} ({one_line(error)})") from error
