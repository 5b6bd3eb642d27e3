"""Cuts windows of one static shape out of cases, for the batches of `batch.py`.

The network's crop is cut out of the window later, on the device. A window holds as much
of the scan as fits; a scan smaller than the window lies in its middle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attunet_jax.data.records import Case, PackedCase
from attunet_jax.errors import BadArguments
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
    of an organ, as far as that keeps it inside the scan.
    """
    size, window = np.array(case.image_hu.shape), np.array(spec.window_shape)
    room = np.maximum(size - window, 0)
    start = rng.integers(0, room + 1)
    if rng.random() < spec.foreground_fraction:
        # flatnonzero of bool takes a ninth of the time that it takes of uint8.
        organs = np.flatnonzero(np.asarray(case.label) != 0)
        if organs.size:
            voxel = np.unravel_index(rng.choice(organs), case.label.shape)
            start = np.clip(np.array(voxel) - window // 2, 0, room)
    return _cut(case, start, spec)


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
