"""Headers of scans in, the memory that a process needs at most out; no voxel is read.

The bounds follow what `prepare_case` and `write_shard`, and for `verify` `examine`,
hold at a time, step by step.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import max_voxels, read_grid, resampled_shape
from data_prep.case import Settings
from data_prep.shard import ShardSpec
from data_prep.sources.layout import ScanPair

# Python with its libraries, before any scan, and buffers of a fixed size.
BASE_BYTES = 140 * 2**20
# The record's arrays are copied, packed, compressed and written.
_RECORD_COPIES = 6
# Of what is freed the allocator of glibc gives back only pieces above this size.
_KEPT_BYTES = 32 * 2**20
_CGROUP = Path("/sys/fs/cgroup")


def process_bytes(specs: Iterable[ShardSpec]) -> int:
    """What one process needs at most for any of the cases."""
    needed = (case_bytes(pair, s.settings) for s in specs for pair in s.pairs)
    return BASE_BYTES + max(needed, default=0)


def look_bytes(pairs: Iterable[ScanPair]) -> int:
    """What one process of `verify` needs at most for any of the cases."""
    return BASE_BYTES + max(map(_look_bytes, pairs), default=0)


def _look_bytes(pair: ScanPair) -> int:
    """Image, its label map as it lies and laid on the image, where organs are."""
    if pair.image is None:
        return 0
    try:
        if pair.image.is_dir():
            return 12 * max_voxels(pair.image)
        volume, fits_int16 = read_grid(pair.image)
    except (BadData, OSError):
        return 0
    image = 2 if fits_int16 else 4
    return volume.voxels.size * max(6, image + 2 + 2 + 1)


def choose_workers(program: str, each: int, tasks: int, wanted: int | None) -> int:
    """Says the most that processes of `each` bytes will use; returns their number."""
    free = available_bytes()
    workers = wanted or core_count()
    if free is not None and wanted is None:
        workers = max(1, min(workers, free // each))
    workers = min(workers, tasks)
    print(
        f"{program}: memory: at most {each / 1e9:.2f} GB a process, "
        f"{workers * each / 1e9:.2f} GB for {workers}",
        file=sys.stderr,
    )
    if free is not None and workers * each > free:
        print(
            f"{program}: only {free / 1e9:.2f} GB are free here: give fewer --workers",
            file=sys.stderr,
        )
    return workers


def case_bytes(pair: ScanPair, settings: Settings) -> int:
    """Of one case; 0 for a scan whose header cannot be read: it will be left out."""
    if pair.image is None:
        return 0
    if pair.image.is_dir():
        # DICOM: int16 as a rule; all headers would take long to read.
        try:
            return 12 * max_voxels(pair.image)
        except BadData:
            return 0
    try:
        volume, fits_int16 = read_grid(pair.image)
        made = resampled_shape(volume, settings.spacing_mm)
    except (BadData, OSError):
        return 0
    shape = volume.voxels.shape
    return _bytes(shape, made, fits_int16=fits_int16, blurred=settings.blur_mm > 0)


def _bytes(
    shape: tuple[int, ...], made: list[int], *, fits_int16: bool, blurred: bool
) -> int:
    size, result = int(np.prod(shape)), int(np.prod(made))
    image = 2 * size if fits_int16 else 4 * size
    reading = image if fits_int16 else 6 * size  # int16 until a value does not fit
    labels = image + 2 * size  # uint8, and masks of single organs beside it
    if blurred:
        image, blurring = 4 * size, image + 4 * size
    else:
        blurring = 0
    # Passes along one axis each, the coarsest first; float32 from the first on.
    now, before, passes = list(shape), 0, 0
    for axis in sorted(range(3), key=lambda a: made[a] / shape[a]):
        now[axis] = made[axis]
        after = 4 * int(np.prod(now))
        passes = max(passes, image + before + after)
        before = after
    resampling = max(passes, image + before + 2 * result) + result
    writing = _RECORD_COPIES * 3 * result
    kept = _RECORD_COPIES * min(3 * result, _KEPT_BYTES)
    return kept + max(reading, labels, blurring + result, resampling, writing)


def available_bytes() -> int | None:
    """Memory that processes can still have here, where the system says it."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = int((_CGROUP / "memory.max").read_text())  # "max": no limit
        found.append(limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(min(found), 0) if found else None


def core_count() -> int:
    """Cores this process may use: a scheduler may give fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
