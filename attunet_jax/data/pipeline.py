"""Makes the batches of one process from a prepared data set.

Order, crops and all randomness depend on the seed and on the position in the global
stream alone, not on the number of processes or threads. Each process reads contiguous
rows of every global batch, so the step is the whole position to save.
"""

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import grain
import numpy as np

from attunet_jax.data.batch import HostBatch
from attunet_jax.data.crops import CropSpec, Window, random_crop
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.shards import damaged
from attunet_jax.errors import BadArguments


def training_batches(
    dataset: Dataset,
    case_ids: Sequence[str],
    crop: CropSpec,
    *,
    batch_size: int,
    seed: int,
    shard: tuple[int, int],
    start_step: int,
    threads: int,
    prefetch: int,
) -> Generator[HostBatch, None, None]:
    """Yields this process's rows of step `start_step`, `start_step + 1`, ... for ever.

    `shard` is (index, count) of the process among those that share the global batch of
    `batch_size` rows; `batch.batch_schema` has the arrays. Every case comes once an
    epoch (`len(case_ids)` rows of the global stream), in another order each time.
    `threads` read up to `prefetch` batches ahead; one thread reads a batch.

    `close()` of the returned generator ends the threads. Raises `BadArguments` for
    numbers that cannot be used, `BadData` naming shard and case for a damaged record.
    """
    if not case_ids:
        raise BadArguments(f"{dataset.place}: no cases to make batches of")
    if not 0 <= seed < 2**32:
        raise BadArguments(f"--config.seed={seed}: must be from 0 to {2**32 - 1}")
    rows = rows_of_shard(batch_size, shard)
    records = _Records(dataset, case_ids)
    cut = partial(_random_window, dataset=dataset, crop=crop)
    # All randomness stands before the split by process, keyed by stream position.
    stream = (
        grain.MapDataset.source(records).seed(seed).shuffle().repeat().random_map(cut)
    )
    batches = (
        _HostRows(stream, batch_size, rows)
        .slice(slice(start_step * len(rows), None))
        .batch(len(rows), drop_remainder=True)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch
            )
        )
    )
    return _until_closed(iter(batches), records)


class _Records:
    """The chosen cases as (position in the data set, bytes of the record)."""

    def __init__(self, dataset: Dataset, case_ids: Sequence[str]) -> None:
        self._dataset = dataset
        # Given the numbers of records, Grain opens a file when it is first read.
        counts = (shard["records"] for shard in dataset.manifest["shards"])
        self._source: grain.sources.ArrayRecordDataSource | None = (
            grain.sources.ArrayRecordDataSource(
                [
                    f"{path}[0:{count}]"
                    for path, count in zip(dataset.shard_paths, counts, strict=True)
                ]
            )
        )
        place = {case_id: i for i, case_id in enumerate(dataset.case_ids)}
        self._chosen = [(dataset.index(name), place[name]) for name in case_ids]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        record, place = self._chosen[index]
        source = self._source
        assert source is not None, "read after close()"
        try:
            return place, source[record]
        except (RuntimeError, ValueError, OSError) as error:
            case_id = self._dataset.case_ids[place]
            path = self._dataset.shard_path(case_id)
            raise damaged(path, f"the record of case {case_id}", error) from error

    def close(self) -> None:
        """Drops the source; its files are closed when no thread reads them any more.

        Closing a reader under a thread that uses it would crash.
        """
        self._source = None


def _random_window(
    element: tuple[int, bytes],
    rng: np.random.Generator,
    *,
    dataset: Dataset,
    crop: CropSpec,
) -> Window:
    place, record = element
    case_id = dataset.case_ids[place]
    case = dataset.open(case_id, record)
    with dataset.error_context(case_id):
        return with_index(random_crop(case, rng, crop), place)


def with_index(window: Window, place: int) -> Window:
    """Adds which case it is: its position in `Dataset.case_ids`."""
    return window | {"case_index": np.array(place, np.int32)}


class _HostRows(grain.MapDataset):
    """The given rows of every global batch of the parent.

    The rows are contiguous, unlike Grain's own interleaving, so that the global batch
    is the same row by row for any number of processes.
    """

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: range) -> None:
        super().__init__(parent)
        self._batch_size, self._rows = batch_size, rows

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[row]]


def rows_of_shard(batch_size: int, shard: tuple[int, int]) -> range:
    """Returns which rows of a global batch are this process's."""
    index, count = shard
    if batch_size < 1 or batch_size % count:
        raise BadArguments(
            f"--config.data.batch_size={batch_size}: cannot be split over {count} "
            f"processes: use a multiple of {count}"
        )
    rows = batch_size // count
    return range(index * rows, (index + 1) * rows)


def _until_closed(
    batches: grain.DatasetIterator, records: _Records
) -> Generator[HostBatch, None, None]:
    try:
        yield from batches
    finally:
        batches.close()
        records.close()
