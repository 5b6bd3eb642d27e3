"""How the intensities of a scan are normalised: one formula and one set of statistics
for prepared records, training and prediction.

    normalised = (image_hu - mean) / max(std, 1)

The guard turns a scan of one value into zeros.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # preparation and readers of records need no JAX
    import jax

    Array = TypeVar("Array", np.ndarray, jax.Array)

MIN_STD_HU = 1.0


@dataclass(frozen=True)
class HuStatistics:
    """Lowest value, mean and standard deviation of all voxels of a scan, in HU."""

    min: float
    mean: float
    std: float

    @classmethod
    def of(cls, image_hu: np.ndarray) -> "HuStatistics":
        """Computes the statistics of `image_hu [D, H, W]` in float64.

        Sums of squares of int16 are exact in float64, so an int16 scan needs neither a
        second pass over deviations nor a float copy.
        """
        mean = float(image_hu.mean(dtype=np.float64))
        if image_hu.dtype == np.int16:
            total = float(np.einsum("dhw,dhw->", image_hu, image_hu, dtype=np.float64))
            std = max(total / image_hu.size - mean**2, 0.0) ** 0.5
        else:
            std = float(image_hu.std(dtype=np.float64))
        return cls(float(image_hu.min()), mean, std)

    def normalise(self, image_hu: np.ndarray) -> np.ndarray:
        """Returns `image_hu` normalised by these statistics, float32."""
        mean, std = (np.array(x, np.float32) for x in (self.mean, self.std))
        return normalise(image_hu, mean, std).astype(np.float32, copy=False)


def normalise(image_hu: "Array", mean: "Array", std: "Array") -> "Array":
    """Returns `(image_hu - mean) / max(std, 1)` for NumPy or JAX arrays.

    `image_hu` is `[D, H, W]` with scalar statistics, or `[B, D, H, W]` with statistics
    `[B]` of each case.
    """
    shape = mean.shape + (1,) * (image_hu.ndim - mean.ndim)
    return (image_hu - mean.reshape(shape)) / std.clip(min=MIN_STD_HU).reshape(shape)
