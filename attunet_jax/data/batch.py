"""The schema of a batch: name, shape and type of every array that a step receives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from attunet_jax.intensity import HuStatistics

HostBatch = dict[str, np.ndarray]


class ArraySpec(NamedTuple):
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def batch_schema(count: int, window_shape: Sequence[int]) -> dict[str, ArraySpec]:
    """Returns name -> shape and type of a batch of `count` windows.

    `image_hu` and `label` are windows of the scans. `mean_hu` and `std_hu`, by which
    they are normalised, are those of the whole scan, or of the run. `scan_start` and
    `scan_size` say where in the window the scan lies, its padding up to the minimum
    shape included. `case_index` is the position of the case in `Dataset.case_ids`.
    Voxels without a truth have their own value in `label`; of them the device makes
    `mask`, beside its crops and only where the data has such voxels.
    """
    window = tuple(window_shape)
    fields: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "image_hu": (window, np.int16),
        "label": (window, np.uint8),
        "mean_hu": ((), np.float32),
        "std_hu": ((), np.float32),
        "scan_start": ((3,), np.int32),
        "scan_size": ((3,), np.int32),
        "case_index": ((), np.int32),
    }
    return {
        name: ArraySpec((count, *shape), np.dtype(dtype))
        for name, (shape, dtype) in fields.items()
    }


def whole_scans(image_hu: np.ndarray, label: np.ndarray) -> HostBatch:
    """Returns the batch of windows `[B, D, H, W]` that are whole scans themselves."""
    schema = batch_schema(len(image_hu), image_hu.shape[1:])
    statistics = [HuStatistics.of(scan) for scan in image_hu]
    fields: dict[str, ArrayLike] = {
        "image_hu": image_hu,
        "label": label,
        "mean_hu": [hu.mean for hu in statistics],
        "std_hu": [hu.std for hu in statistics],
        "scan_start": np.zeros(schema["scan_start"].shape),
        "scan_size": [image_hu.shape[1:]] * len(image_hu),
        "case_index": range(len(image_hu)),
    }
    return {name: np.asarray(fields[name], spec.dtype) for name, spec in schema.items()}
