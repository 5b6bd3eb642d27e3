"""Cuts windows of one static shape out of cases, for the batches of `batch.py`.

The network's crop is cut out of the window later, on the device. A window holds as much
of the scan as fits; a scan smaller than the window lies in its middle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attunet_jax.data.records import Case, PackedCase
from attunet_jax.data.slabs import SLAB_DEPTH
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.intensity import CtNormalisation

Window = dict[str, np.ndarray]
Voxel = tuple[int, int, int]  # d, h, w
PADDINGS = LOWEST, LINE_MINIMUM = ("lowest", "line_minimum")


@dataclass(frozen=True)
class CropSpec:
    """What windows look like and where they are cut.

    Scans are padded to `min_shape`, so that the network's crop fits: with "lowest" by
    the scan's lowest HU and label 0, with "line_minimum" by the minimum of each line of
    voxels, labels too (the published code). With a `normalisation` values are clipped
    to its range and its mean and deviation stand in the window, else those of the scan.
    Raises `BadArguments` for a fraction outside 0..1.
    """

    window_shape: tuple[int, int, int]  # D, H, W
    min_shape: tuple[int, int, int]
    padding: str = LOWEST
    foreground_fraction: float = 0.0  # of random windows, centred on an organ
    normalisation: CtNormalisation | None = None
    organs: tuple[int, ...] | None = None  # their labels; None: all that a case has

    def __post_init__(self) -> None:
        if not 0 <= self.foreground_fraction <= 1:
            raise BadArguments(
                f"--config.data.foreground_fraction={self.foreground_fraction}: "
                "must be from 0 to 1"
            )

    @classmethod
    def exact(
        cls,
        shape: Sequence[int],
        padding: str,
        normalisation: CtNormalisation | None = None,
    ) -> "CropSpec":
        """Returns the spec of windows as large as the network's crop."""
        d, h, w = shape
        return cls((d, h, w), (d, h, w), padding, normalisation=normalisation)


def random_crop(
    case: Case | PackedCase, rng: np.random.Generator, spec: CropSpec
) -> Window:
    """Cuts a window at a uniformly random place.

    With probability `spec.foreground_fraction` it is instead centred on a random voxel
    of an organ, as far as that keeps it inside the scan. The organ is drawn first, each
    of `spec.organs` that the case has with the same probability.
    """
    size, window = np.array(case.image_hu.shape), np.array(spec.window_shape)
    room = np.maximum(size - window, 0)
    start = rng.integers(0, room + 1)
    if rng.random() < spec.foreground_fraction:
        voxel = _organ_voxel(case, rng, spec.organs)
        if voxel is not None:
            start = np.array(start_around(voxel, case.image_hu.shape, spec))
    return _cut(case, start, spec)


def _organ_voxel(
    case: Case | PackedCase, rng: np.random.Generator, organs: tuple[int, ...] | None
) -> Voxel | None:
    """Draws an organ, then one of its voxels (d, h, w); None if the case has none."""
    counts = case.organ_voxels
    present = np.flatnonzero(counts.any(0)) + 1
    if organs is not None:
        present = present[np.isin(present, organs)]
    if not present.size:
        return None
    value = rng.choice(present)
    up_to = counts[:, value - 1].cumsum(dtype=np.int64)
    number = rng.integers(up_to[-1])  # of the organ's voxels, counted from slice 0 on
    slab = int(np.searchsorted(up_to, number, "right"))
    first = slab * SLAB_DEPTH
    whole = slice(None)
    part = case.label[slice(first, first + SLAB_DEPTH), whole, whole] == value
    # flatnonzero of bool takes a ninth of the time that it takes of uint8.
    found = np.flatnonzero(part)
    within = number - up_to[slab] + counts[slab, value - 1]
    if within >= found.size:
        raise BadData("damaged record: organ_voxels is not of this label")
    d, h, w = np.unravel_index(found[within], part.shape)
    return first + int(d), int(h), int(w)


def centre_crop(case: Case | PackedCase, spec: CropSpec) -> Window:
    """Cuts the window in the middle of the case."""
    room = np.array(case.image_hu.shape) - spec.window_shape
    return _cut(case, np.maximum(room, 0) // 2, spec)


def start_around(centre: Voxel, shape: Sequence[int], spec: CropSpec) -> Voxel:
    """Returns the first voxel of a window of a scan of `shape` around `centre`.

    The window is moved as far as it must to lie inside the scan.
    """
    d, h, w = (
        min(max(c - n // 2, 0), max(size - n, 0))
        for c, n, size in zip(centre, spec.window_shape, shape, strict=True)
    )
    return d, h, w


def crop_from(case: Case | PackedCase, start: Voxel, spec: CropSpec) -> Window:
    """Cuts the window that begins at `start`."""
    return _cut(case, np.array(start), spec)


def _cut(case: Case | PackedCase, start: np.ndarray, spec: CropSpec) -> Window:
    """Copies the voxels inside the window; allocates nothing as large as the scan."""
    size, window = np.array(case.image_hu.shape), np.array(spec.window_shape)
    scan_size = np.minimum(np.maximum(size, spec.min_shape), window)
    scan_start = (window - scan_size) // 2
    before = (scan_size - np.minimum(size, scan_size)) // 2
    d, h, w = _slices(start, scan_size)
    mean_hu, std_hu = case.hu.mean, case.hu.std
    if spec.normalisation is not None:
        mean_hu, std_hu = spec.normalisation.mean_hu, spec.normalisation.std_hu
    cut = {
        "mean_hu": np.array(mean_hu, np.float32),
        "std_hu": np.array(std_hu, np.float32),
        "scan_start": scan_start.astype(np.int32),
        "scan_size": scan_size.astype(np.int32),
    }
    for name, whole, outside in (
        ("image_hu", case.image_hu, case.hu.min),
        ("label", case.label, 0),
    ):
        part, place = whole[d, h, w], scan_start + before
        if spec.padding == LINE_MINIMUM:
            after = scan_size - before - part.shape
            part = np.pad(part, np.stack([before, after], 1), mode="minimum")
            place = scan_start
        if (window > size).any():
            cut[name] = np.full(window, outside, whole.dtype)
            cut[name][tuple(_slices(place, part.shape))] = part
        else:
            cut[name] = np.ascontiguousarray(part)
    if spec.normalisation is not None:
        cut["image_hu"] = spec.normalisation.clip(cut["image_hu"])
    return cut


def _slices(
    start: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray
) -> Iterator[slice]:
    return (slice(s, s + n) for s, n in zip(start, size, strict=True))
