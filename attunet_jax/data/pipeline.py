"""A prepared data set in, endless batches for this process out, by seed and step alone.

Order, crops and all chance are global: they depend on the seed and on the position in
the stream, not on how many processes or threads read it. Each process takes contiguous
rows of every global batch; the position to save is one number, the step.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import from_bytes
from attunet_jax.errors import BadArguments, BadData, one_line

HostBatch = dict[str, np.ndarray]


def training_batches(
    dataset: Dataset,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    crop_shape: tuple[int, int, int],
    foreground_fraction: float,
    seed: int,
    shard_index: int,
    shard_count: int,
    start_step: int,
    threads: int,
    prefetch: int,
) -> Iterator[HostBatch]:
    """Batches from `start_step` on, `b = batch_size / shard_count` rows each.

    `image_hu i16[b, D, H, W]`, `label u8[b, D, H, W]`, `mean_hu f32[b]` and
    `std_hu f32[b]` of the whole case, `case_index i32[b]` in `dataset.case_ids`. Every
    case comes once an epoch, in another order each; `foreground_fraction` of the crops
    is centred on an organ's voxel.

    Raises `BadArguments` for a batch that cannot be shared out and `BadData` naming a
    damaged shard.
    """
    rows = _share(batch_size, shard_count)
    crop = _RandomCrop(crop_shape, foreground_fraction)
    stream = (
        grain.MapDataset.source(_Cases(dataset, case_ids))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(crop)
    )
    stream = _HostRows(stream, batch_size, rows, shard_index)
    stream = stream.slice(slice(start_step * rows, None)).batch(rows)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return _Batches(stream.to_iter_dataset(options))


def centre_crops(
    dataset: Dataset,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    crop_shape: tuple[int, int, int],
    shard_index: int,
    shard_count: int,
) -> Iterator[HostBatch]:
    """The centre crop of each case once, in order, in batches like those of training.

    `weight f32[b]` is 1, and 0 for the repetitions that fill up the last batch.
    """
    rows = _share(batch_size, shard_count)
    source = _Cases(dataset, case_ids)
    for start in range(0, len(source), batch_size):
        mine = range(start + shard_index * rows, start + (shard_index + 1) * rows)
        elements = []
        for position in mine:
            case, index = source[min(position, len(source) - 1)]
            element = _cut(case, index, crop_shape, _centre(case, crop_shape))
            elements.append(element | {"weight": np.float32(position < len(source))})
        yield {name: np.stack([e[name] for e in elements]) for name in elements[0]}


class _Cases(grain.sources.RandomAccessDataSource):
    """The chosen cases, by position among them: (case, index in the data set)."""

    def __init__(self, dataset: Dataset, case_ids: Sequence[str]) -> None:
        self._records = grain.sources.ArrayRecordDataSource(
            [str(path) for path in dataset.paths]
        )
        position = {case_id: i for i, case_id in enumerate(dataset.case_ids)}
        self._chosen = [(dataset.index(i), position[i], i) for i in case_ids]
        self._directory = dataset.directory

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, i: Any) -> tuple:
        record, index, case_id = self._chosen[i]
        try:
            return from_bytes(self._records[record]), index
        except (RuntimeError, BadData) as error:
            raise BadData(
                f"{self._directory}: case {case_id} is damaged "
                f"({one_line(error)[:120]}); prepare the data again"
            ) from None

    def __repr__(self) -> str:
        return f"Cases({self._directory}, {len(self)})"


class _RandomCrop(grain.transforms.RandomMap):
    """A case to a crop of a static shape at a random place."""

    def __init__(self, crop_shape: Sequence[int], foreground_fraction: float) -> None:
        self._shape = crop_shape
        self._foreground_fraction = foreground_fraction

    def random_map(self, element: tuple, rng: np.random.Generator) -> HostBatch:
        case, index = element
        centred = rng.random() < self._foreground_fraction
        start = [
            int(rng.integers(0, n - c + 1)) if n > c else -((c - n) // 2)
            for n, c in zip(case.image_hu.shape, self._shape, strict=True)
        ]
        if centred:
            organs = np.flatnonzero(case.label)
            if organs.size:
                voxel = np.unravel_index(
                    organs[rng.integers(organs.size)], case.label.shape
                )
                start = [
                    int(np.clip(v - c // 2, 0, n - c)) if n > c else s
                    for v, c, n, s in zip(
                        voxel, self._shape, case.label.shape, start, strict=True
                    )
                ]
        return _cut(case, index, self._shape, start)


class _HostRows(grain.MapDataset):
    """Rows `[shard * b, (shard + 1) * b)` of every global batch of the parent.

    Contiguous rows, unlike grain's own interleaving: the global batch is then the same
    for any number of processes, row by row.
    """

    def __init__(self, parent: Any, batch_size: int, rows: int, shard: int) -> None:
        super().__init__(parent)
        self._batch_size, self._rows, self._shard = batch_size, rows, shard

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._rows

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return self.slice(i)
        batch, row = divmod(i, self._rows)
        return self._parent[batch * self._batch_size + self._shard * self._rows + row]


class _Batches:
    """Grain's iterator, with a `close` that ends its threads."""

    def __init__(self, dataset: grain.IterDataset) -> None:
        self._iterator = iter(dataset)

    def __iter__(self) -> "_Batches":
        return self

    def __next__(self) -> HostBatch:
        return next(self._iterator)

    def close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close:
            close()


def _share(batch_size: int, shard_count: int) -> int:
    if batch_size % shard_count:
        raise BadArguments(
            f"config.data.batch_size={batch_size} cannot be shared by {shard_count} "
            "processes: use a multiple"
        )
    return batch_size // shard_count


def _centre(case: Any, crop_shape: Sequence[int]) -> list[int]:
    return [
        (n - c) // 2 if n > c else -((c - n) // 2)
        for n, c in zip(case.image_hu.shape, crop_shape, strict=True)
    ]


def _cut(case: Any, index: int, shape: Sequence[int], start: Sequence[int]) -> dict:
    """The crop beginning at `start`, which is negative where the scan is smaller.

    Missing voxels get the scan's lowest HU, and label 0.
    """
    image = case.image_hu
    mean = image.mean(dtype=np.float64)
    # One pass less than std(): E[x^2] is exact enough in float64 for int16.
    square = np.einsum("dhw,dhw->", image, image, dtype=np.float64)
    std = np.sqrt(max(square / image.size - mean**2, 0.0))
    cut = tuple(slice(max(s, 0), s + c) for s, c in zip(start, shape, strict=True))
    pad = [
        (max(-s, 0), max(s + c - n, 0))
        for s, c, n in zip(start, shape, image.shape, strict=True)
    ]
    crop, label = image[cut], case.label[cut]
    if any(before or after for before, after in pad):
        crop = np.pad(crop, pad, constant_values=image.min())
        label = np.pad(label, pad)
    return {
        "image_hu": np.ascontiguousarray(crop),
        "label": np.ascontiguousarray(label),
        "mean_hu": np.float32(mean),
        "std_hu": np.float32(std),
        "case_index": np.int32(index),
    }
