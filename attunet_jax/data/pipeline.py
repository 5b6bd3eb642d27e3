"""A prepared data set in, endless batches for this process out, by seed and step alone.

Order, crops and all chance are global: they depend on the seed and on the place in the
stream, not on how many processes or threads read it. Each process takes contiguous rows
of every global batch, so the position to save is one number, the step.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

import grain
import numpy as np

from attunet_jax.data.crops import Piece, centre_crop, random_crop
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.shards import damaged
from attunet_jax.errors import BadArguments

HostBatch = dict[str, np.ndarray]


def training_batches(
    dataset: Dataset,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    crop_shape: Sequence[int],
    least_shape: Sequence[int],
    foreground_fraction: float,
    padding: str,
    seed: int,
    shard_index: int,
    shard_count: int,
    start_step: int,
    threads: int,
    prefetch: int,
) -> Generator[HostBatch, None, None]:
    """Batches of step `start_step`, `start_step + 1`, ... without end.

    Each has `b = batch_size / shard_count` rows: `image_hu` int16 and `label` uint8
    `[b, *crop_shape]`, `mean_hu` and `std_hu` float32 `[b]` over the whole case,
    `scan_start` and `scan_size` int32 `[b, 3]`: where the scan lies in it, and
    `case_index` int32 `[b]` into `dataset.case_ids`. Every case comes once an epoch
    (`len(case_ids)` rows of the global stream), in another order each. See
    `crops.random_crop` for the crops. `threads` read up to `prefetch` batches ahead; a
    batch is read by one thread.

    `close()` of the returned generator ends the threads. Raises `BadArguments` for
    numbers that cannot be used, `BadData` naming shard and case for a damaged record.
    """
    if not case_ids:
        raise BadArguments(f"{dataset.directory}: no cases to make batches of")
    if not 0 <= foreground_fraction <= 1:
        raise BadArguments(
            f"config.data.foreground_fraction={foreground_fraction} is not in 0..1"
        )
    if not 0 <= seed < 2**32:
        raise BadArguments(f"config.seed={seed} is not in 0..{2**32 - 1}")
    rows = _rows_of_shard(batch_size, shard_index, shard_count)
    cut = partial(
        _random_row,
        dataset=dataset,
        crop_shape=tuple(crop_shape),
        least_shape=tuple(least_shape),
        foreground_fraction=foreground_fraction,
        padding=padding,
    )
    records = _Records(dataset, case_ids)
    # All chance comes before the split by process, and by position in the stream.
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


def centre_crops(
    dataset: Dataset,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    crop_shape: Sequence[int],
    padding: str,
    shard_index: int,
    shard_count: int,
) -> Iterator[HostBatch]:
    """The centre crop of each case once, in order, in batches like those of training.

    Besides the fields of training, `weight` float32 `[b]` is 1, and 0 in the rows that
    only fill up the last batch (they repeat the last case).
    """
    rows = _rows_of_shard(batch_size, shard_index, shard_count)
    place = {case_id: i for i, case_id in enumerate(dataset.case_ids)}
    last = len(case_ids) - 1
    for first in range(0, len(case_ids), batch_size):
        pieces = []
        for position in (first + row for row in rows):
            case_id = case_ids[min(position, last)]
            piece = centre_crop(
                dataset.case(case_id), crop_shape=crop_shape, padding=padding
            )
            piece["case_index"] = np.int32(place[case_id])
            piece["weight"] = np.float32(position <= last)
            pieces.append(piece)
        yield {name: np.stack([piece[name] for piece in pieces]) for name in pieces[0]}


class _Records:
    """The chosen cases' records by position: (case's place in the data set, bytes)."""

    def __init__(self, dataset: Dataset, case_ids: Sequence[str]) -> None:
        self._dataset = dataset
        # With the numbers of records, files are opened when first read, not now.
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
        """Closes the files when the last thread that is still reading one is done.

        Not earlier: closing a reader under a thread that uses it is a crash.
        """
        self._source = None


def _random_row(
    element: tuple[int, bytes],
    rng: np.random.Generator,
    *,
    dataset: Dataset,
    **settings: Any,
) -> Piece:
    place, record = element
    case_id = dataset.case_ids[place]
    case = dataset.open(case_id, record)
    with dataset.naming(case_id):
        piece = random_crop(case, rng, **settings)
    return piece | {"case_index": np.int32(place)}


class _HostRows(grain.MapDataset):
    """These rows of every global batch of the parent.

    Contiguous, unlike Grain's own interleaving, so that the global batch is the same
    row by row for any number of processes.
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


def _rows_of_shard(batch_size: int, shard_index: int, shard_count: int) -> range:
    """Which rows of a global batch are this process's."""
    if batch_size < 1 or batch_size % shard_count:
        raise BadArguments(
            f"config.data.batch_size={batch_size} cannot be split over {shard_count} "
            f"processes: use a multiple of {shard_count}"
        )
    count = batch_size // shard_count
    return range(shard_index * count, (shard_index + 1) * count)


def _until_closed(
    batches: grain.DatasetIterator, records: _Records
) -> Generator[HostBatch, None, None]:
    try:
        yield from batches
    finally:
        batches.close()
        records.close()
