"""How the intensities of a scan become the network's input: one definition for
prepared records, training and prediction.

    normalised = (image_hu - mean) / max(std, 1)

"ct" first clips the image; range, mean and deviation are those of the labelled voxels
of a run's training cases, the same numbers for every scan (`CtNormalisation`), so that
nothing outside the organs decides them. "scan" takes mean and deviation of all voxels
of each scan (`HuStatistics`). The guard turns a scan of one value into zeros.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:  # preparation and readers of records need no JAX
    import jax

    Array = TypeVar("Array", np.ndarray, jax.Array)

NORMALISATIONS = CT, SCAN = ("ct", "scan")
MIN_STD_HU = 1.0
# What the 12 bits of a scanner hold. Below it is padding, above it metal.
AIR_HU, HIGHEST_HU = HU_RANGE = (-1024, 3071)
# No bone of the trunk is as dense.
METAL_HU = 2500
# Percentiles of the labelled voxels between which "ct" clips, as nnU-Net's.
CLIP_PERCENTILES = 0.5, 99.5
_INT16 = np.iinfo(np.int16)
_PART_VOX = 2**20


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
        return _normalise_by(image_hu, self.mean, self.std)


@dataclass(frozen=True)
class CtNormalisation:
    """The four numbers of a run that normalises by "ct"."""

    low_hu: int
    high_hu: int
    mean_hu: float
    std_hu: float

    def clip(self, image_hu: np.ndarray) -> np.ndarray:
        """Returns a copy within `low_hu` and `high_hu`, of the same type."""
        return image_hu.clip(self.low_hu, self.high_hu)

    def without_metal(self, image_hu: np.ndarray) -> np.ndarray:
        """Returns `image_hu` with `mean_hu` for metal: a copy where there is any.

        For a scan that is resampled next. Metal hides tissue: as the mean it says
        nothing of it, at 3071 HU it would look like the brightest organ and spread to
        the voxels beside it. Scans without metal stay as training has them.
        """
        above = max(METAL_HU, self.high_hu)
        if image_hu.max() <= above:
            return image_hu
        mean = image_hu.dtype.type(round(self.mean_hu))
        return np.where(image_hu > above, mean, image_hu)

    def normalise(self, image_hu: np.ndarray) -> np.ndarray:
        """Returns `image_hu` clipped and normalised, float32."""
        return _normalise_by(self.clip(image_hu), self.mean_hu, self.std_hu)

    def as_json(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> "CtNormalisation | None":
        """Returns that of a stored run, None where it normalises by "scan".

        So do runs from before there was a choice.
        """
        stored = run.get("normalisation")
        return None if stored is None else cls(**stored)


def normalise(image_hu: "Array", mean: "Array", std: "Array") -> "Array":
    """Returns `(image_hu - mean) / max(std, 1)` for NumPy or JAX arrays.

    `image_hu` is `[D, H, W]` with scalar statistics, or `[B, D, H, W]` with statistics
    `[B]` of each case.
    """
    shape = mean.shape + (1,) * (image_hu.ndim - mean.ndim)
    return (image_hu - mean.reshape(shape)) / std.clip(min=MIN_STD_HU).reshape(shape)


def _normalise_by(image_hu: np.ndarray, mean_hu: float, std_hu: float) -> np.ndarray:
    mean, std = (np.array(x, np.float32) for x in (mean_hu, std_hu))
    return normalise(image_hu, mean, std).astype(np.float32, copy=False)


def clip_hu(
    image_hu: np.ndarray, hu_range: Iterable[int] = HU_RANGE, *, in_place: bool = False
) -> np.ndarray:
    """Returns `image_hu` within `hu_range`: itself where nothing lies outside.

    Otherwise a copy, or with `in_place` itself after it was changed.
    """
    low, high = hu_range
    if image_hu.min() >= low and image_hu.max() <= high:
        return image_hu
    return np.clip(image_hu, low, high, out=image_hu if in_place else None)


@dataclass(frozen=True, eq=False)
class HuHistogram:
    """How many voxels have each whole HU: `counts[i]` have `first_hu + i`.

    `counts` is int64 and begins and ends with a number above 0, or is empty.
    """

    first_hu: int
    counts: np.ndarray

    @classmethod
    def of(cls, image_hu: np.ndarray) -> "HuHistogram":
        """Counts the voxels of an array of any shape; fractions of a HU are rounded."""
        counts = np.zeros(2**16, np.int64)
        voxels = image_hu.reshape(-1)
        # In parts: np.bincount converts its input to 8-byte integers.
        for start in range(0, voxels.size, _PART_VOX):
            part = voxels[start : start + _PART_VOX]
            if part.dtype != np.int16:
                part = np.rint(part).clip(_INT16.min, _INT16.max).astype(np.int16)
            bits = np.ascontiguousarray(part).view(np.uint16)
            counts += np.bincount(bits, minlength=2**16)
        return cls._trimmed(int(_INT16.min), np.roll(counts, 2**15))

    @classmethod
    def total(cls, histograms: Iterable["HuHistogram"]) -> "HuHistogram":
        """Adds histograms up."""
        counts = np.zeros(2**16, np.int64)
        for one in histograms:
            first = one.first_hu - _INT16.min
            counts[first : first + len(one.counts)] += one.counts
        return cls._trimmed(int(_INT16.min), counts)

    @classmethod
    def _trimmed(cls, first_hu: int, counts: np.ndarray) -> "HuHistogram":
        found = np.flatnonzero(counts)
        if not len(found):
            return cls(0, counts[:0])
        first, last = int(found[0]), int(found[-1])
        return cls(first_hu + first, counts[first : last + 1])

    @property
    def size(self) -> int:
        """The number of voxels."""
        return int(self.counts.sum())

    @property
    def values_hu(self) -> np.ndarray:
        """The HU of each count, int64."""
        return self.first_hu + np.arange(len(self.counts))

    def percentile(self, percent: float) -> float:
        """Returns `np.percentile` of the voxels, linear between two of them.

        Raises `ValueError` where there are none.
        """
        if not len(self.counts):
            raise ValueError("no voxels, so no percentile")
        rank = percent / 100 * (self.size - 1)
        up_to = self.counts.cumsum()
        ends = np.searchsorted(up_to, [int(rank), math.ceil(rank)], "right")
        low, high = (self.first_hu + ends).tolist()
        return low + (high - low) * (rank % 1)

    def ct_normalisation(self) -> CtNormalisation:
        """Returns the normalisation by these voxels.

        Mean and deviation are those of the clipped voxels. The range is rounded to
        whole HU, so that int16 scans stay exact. Raises `ValueError` where there are
        no voxels.
        """
        low, high = (round(self.percentile(percent)) for percent in CLIP_PERCENTILES)
        clipped = self.values_hu.clip(low, high)
        # Whole numbers: the same on every machine.
        count, total = self.size, int(self.counts @ clipped)
        squares = int(self.counts @ (clipped * clipped))
        return CtNormalisation(
            low_hu=low,
            high_hu=high,
            mean_hu=total / count,
            std_hu=math.sqrt(count * squares - total * total) / count,
        )

    def as_json(self) -> dict[str, Any]:
        """Counts as one text, so that a manifest stays readable."""
        return {
            "first": self.first_hu,
            "counts": " ".join(map(str, self.counts.tolist())),
        }

    @classmethod
    def from_json(cls, content: object) -> "HuHistogram":
        """Reads what `as_json` returns. Raises `ValueError` for anything else."""
        match content:
            case {"first": int(first), "counts": str(text)}:
                counts = np.array([int(word) for word in text.split()], np.int64)
            case _:
                raise ValueError(f"{content!r} is no histogram")
        last = first + len(counts) - 1
        if first < _INT16.min or last > _INT16.max or (counts < 0).any():
            raise ValueError(f"a histogram of {first} to {last} HU, or counts below 0")
        return cls._trimmed(first, counts)


# Above it lie fat, organs and bone, below it lungs and air.
TISSUE_HU = -300
# How far a scan may lie outside what the training cases span. Tables, metal, contrast
# and the field of view stay inside; another unit or zero point does not.
_AIR_TOLERANCE_HU, _TISSUE_TOLERANCE_HU, _LEAST_SHARE = 300, 120, 0.1


@dataclass(frozen=True)
class HuLevels:
    """What tells whether the values of a scan are HU as those of other scans."""

    air_hu: float  # percentile 0.5 of all voxels
    tissue_hu: float  # median of the voxels above -300 HU; -300 without any
    tissue_share: float  # of these among all

    @classmethod
    def of(cls, voxels: HuHistogram) -> "HuLevels":
        """Finds the levels in the histogram of a whole scan."""
        above = max(TISSUE_HU + 1 - voxels.first_hu, 0)
        tissue = HuHistogram(voxels.first_hu + above, voxels.counts[above:])
        return cls(
            air_hu=voxels.percentile(0.5),
            tissue_hu=tissue.percentile(50) if tissue.size else TISSUE_HU,
            tissue_share=tissue.size / voxels.size,
        )

    @staticmethod
    def spans(levels: Iterable["HuLevels"]) -> dict[str, list[float]]:
        """Returns the lowest and highest of each level, for `unlike`."""
        rows = [asdict(one) for one in levels]
        return {
            name: [min(row[name] for row in rows), max(row[name] for row in rows)]
            for name in rows[0]
        }

    def unlike(self, spans: Mapping[str, list[float]]) -> str | None:
        """Says in what the scan is unlike those that have these `spans`."""
        air, tissue, share = (
            spans[name] for name in ("air_hu", "tissue_hu", "tissue_share")
        )
        if self.tissue_share < _LEAST_SHARE * share[0]:
            return (
                f"{self.tissue_share:.2%} of its voxels are above {TISSUE_HU} HU, "
                f"{share[0]:.0%} or more in training"
            )
        if self.air_hu > air[1] + _AIR_TOLERANCE_HU:
            return (
                f"its darkest voxels are {self.air_hu:.0f} HU, at most {air[1]:.0f} in "
                "training"
            )
        low, high = tissue[0] - _TISSUE_TOLERANCE_HU, tissue[1] + _TISSUE_TOLERANCE_HU
        if not low <= self.tissue_hu <= high:
            return (
                f"half of its tissue is above {self.tissue_hu:.0f} HU, {tissue[0]:.0f} "
                f"to {tissue[1]:.0f} in training"
            )
        return None
