"""Shards: they appear whole or not at all, and damage is never read as data."""

import os
import resource
import signal

import pytest
from array_record.python.array_record_module import ArrayRecordReader

from attunet_jax.data.shards import count_records, read_record, write_shard
from attunet_jax.errors import BadData

RECORDS = [bytes([i]) * (1000 + i) for i in range(5)]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "s.array_record"
    assert write_shard(path, iter(RECORDS)) == 5
    return path


def test_records_are_read_back_in_any_order(shard):
    assert count_records(shard) == 5
    for index in (3, 0, 4, 4, 1, 2):
        assert read_record(shard, index) == RECORDS[index]


def test_every_record_is_a_group_of_its_own(shard):
    reader = ArrayRecordReader(str(shard))
    options = reader.writer_options_string()
    reader.close()
    assert "group_size:1," in options and "uncompressed" in options


def test_only_the_shard_is_left_in_the_folder(shard):
    assert [p.name for p in shard.parent.iterdir()] == ["s.array_record"]


def test_files_left_by_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".s.array_record.123.new").write_bytes(b"half")
    (tmp_path / ".other.array_record.123.new").write_bytes(b"half")
    write_shard(tmp_path / "s.array_record", RECORDS)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".other.array_record.123.new", "s.array_record"]


def test_a_failing_source_leaves_the_old_shard_and_nothing_else(shard):
    def failing():
        yield b"new"
        raise KeyError("source")

    with pytest.raises(KeyError):
        write_shard(shard, failing())
    assert read_record(shard, 0) == RECORDS[0]
    assert [p.name for p in shard.parent.iterdir()] == ["s.array_record"]


def test_a_full_disk_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(BadData, match=r"s\.array_record: cannot be written"):
            write_shard(tmp_path / "s.array_record", [os.urandom(300_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_os_error_at_once(tmp_path):
    def never():
        raise AssertionError("nothing is computed for a folder that is not there")
        yield b""

    with pytest.raises(FileNotFoundError):
        write_shard(tmp_path / "no" / "s.array_record", never())


def test_a_record_that_is_not_there_is_refused(shard):
    for index in (5, -1, 1000):
        with pytest.raises(BadData, match=f"no record {index}, it has 5"):
            read_record(shard, index)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadData, match="gone.array_record: no such shard"):
        count_records(tmp_path / "gone.array_record")


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "foreign.array_record"
    for content in (b"", b"hello", b"\x00" * 200_000, b"x" * 200_000):
        path.write_bytes(content)
        with pytest.raises(BadData, match="foreign.array_record"):
            read_record(path, 0)


def test_a_truncated_file_never_gives_a_record(shard):
    content = shard.read_bytes()
    for length in (0, 1, 100, 5000, 1 << 16, len(content) - 1):
        shard.write_bytes(content[:length])
        for index in range(5):
            with pytest.raises(BadData):
                read_record(shard, index)


def test_flipped_bits_are_noticed_wherever_they_are(shard):
    content = shard.read_bytes()
    noticed = 0
    used = [i for i, byte in enumerate(content) if byte]
    for position in used[::9]:
        flipped = bytearray(content)
        flipped[position] ^= 0x04
        shard.write_bytes(flipped)
        for index in range(5):
            try:
                assert read_record(shard, index) == RECORDS[index]
            except BadData as error:
                assert str(error).startswith(str(shard))
                assert "\n" not in str(error)
                noticed += 1
    assert noticed >= 10


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_readers_leave_no_open_files(shard):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_record(shard, 1)
        count_records(shard)
        with pytest.raises(BadData):
            read_record(shard, 9)
    assert len(os.listdir("/proc/self/fd")) == before
