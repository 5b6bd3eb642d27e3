"""Crops for validation: one centred on each organ of each case, the same every time.

A crop in the middle of a scan shows only what happens to lie there, and the score of a
network would be that of a few organs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet_jax.data.batch import HostBatch
from attunet_jax.data.crops import CropSpec, Voxel, crop_from, start_around
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.pipeline import rows_of_shard, with_index


@dataclass(frozen=True)
class OrganCrops:
    """Which windows are cut, and which organs each of them is for."""

    windows: tuple[tuple[str, Voxel], ...]  # (case id, the window's first voxel)
    scored: tuple[tuple[int, str], ...]  # (position in `windows`, organ)
    absent: Mapping[str, int]  # organ -> number of cases without it


def find_organ_crops(
    dataset: Dataset, case_ids: Sequence[str], organs: Sequence[str], spec: CropSpec
) -> OrganCrops:
    """Finds where the crops of the cases lie; reads each label map once.

    Organs of a case whose crops are the same window, because it holds the whole scan
    for example, share it. Raises `BadData` for a damaged record.
    """
    windows: dict[tuple[str, Voxel], int] = {}
    scored, absent = [], dict.fromkeys(organs, 0)
    for case_id in case_ids:
        case = dataset.open(case_id)
        with dataset.error_context(case_id):
            label = np.asarray(case.label)
        for organ in organs:
            centre = organ_centre(label, dataset.labels.values[organ])
            if centre is None:
                absent[organ] += 1
                continue
            window = case_id, start_around(centre, label.shape, spec)
            scored.append((windows.setdefault(window, len(windows)), organ))
    return OrganCrops(tuple(windows), tuple(scored), absent)


def organ_centre(label: np.ndarray, value: int) -> Voxel | None:
    """Returns the voxel of an organ that is nearest to its centre of mass.

    The first of several. None where `label [D, H, W]` has no such value.
    """
    found = ndimage.find_objects((label == value).view(np.uint8))
    if not found:
        return None
    (box,) = found
    voxels = np.argwhere(label[box] == value)
    # Sums of integers, so that every machine finds the same voxel.
    apart = np.square(voxels - voxels.sum(0) / len(voxels)).sum(1)
    d, h, w = (
        int(v) + part.start for v, part in zip(voxels[apart.argmin()], box, strict=True)
    )
    return d, h, w


def organ_batches(
    dataset: Dataset,
    crops: OrganCrops,
    spec: CropSpec,
    *,
    batch_size: int,
    shard: tuple[int, int],
) -> Iterator[HostBatch]:
    """Yields each window once, in order, in batches like training's.

    The last batch is filled up with rows that repeat the last window.
    """
    rows = rows_of_shard(batch_size, shard)
    place = {case_id: i for i, case_id in enumerate(dataset.case_ids)}
    last = len(crops.windows) - 1
    for first in range(0, len(crops.windows), batch_size):
        windows = []
        for row in rows:
            case_id, start = crops.windows[min(first + row, last)]
            case = dataset.open(case_id)
            with dataset.error_context(case_id):
                window = crop_from(case, start, spec)
            windows.append(with_index(window, place[case_id]))
        yield {name: np.stack([w[name] for w in windows]) for name in windows[0]}
