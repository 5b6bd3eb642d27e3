"""Writes records to ArrayRecord files and reads them back by number.

The ArrayRecord library takes a truncated file for an empty one without an error, so
records are counted after writing, before the file appears, and again on opening.
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
from attunet_jax.files import replacing

# One record a group allows random access without reading neighbours. Voxels are packed
# already.
WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def write_shard(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes all records, the whole file or none, and returns their number.

    Raises `OSError` where the folder cannot be written and `BadData` where writing
    fails later, on a full disk for example. What `records` raises passes through.
    """
    path = Path(path)
    for stale in path.parent.glob(f".{path.name}.*.new"):  # left by a killed process
        stale.unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.touch()  # the writer reports a bad folder only when it is closed
        count = 0
        writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            _close(writer, path, "cannot be written; is there room for it?")
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        if (readable := count_records(temporary)) != count:
            raise BadData(f"{path}: {readable} of {count} records were written")
    return count


def count_records(path: str | os.PathLike) -> int:
    """Returns the number of records. Raises `BadData` where it is no ArrayRecord."""
    with _reader(path) as reader:
        return reader.num_records()


def read_record(path: str | os.PathLike, index: int) -> bytes:
    """Returns record `index`. Raises `BadData` where it is missing or damaged."""
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
    """Returns the error to raise where the ArrayRecord library cannot read a file."""
    return BadData(
        f"{path}: {what} is damaged ({one_line(error)}): prepare the data again"
    )


def _close(
    file: ArrayRecordReader | ArrayRecordWriter, path: str | os.PathLike, problem: str
) -> None:
    """Closes the file; the library reports most errors only here."""
    try:
        file.close()
    except RuntimeError as error:
        raise BadData(f"{path}: {problem} ({one_line(error)})") from error
