"""A scan or label map with its geometry, and the grid of the file it came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# 16 GiB of int16, far above any CT: a header or spacing that leads there is wrong.
MAX_VOXELS = 2**33


@dataclass(frozen=True)
class Grid:
    """The grid of a scan as its file stores it.

    `shape` is in the file's own axis order; `affine` (4, 4) float64 takes a file index
    to world mm, RAS+ (nibabel's convention).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Volume:
    """A scan or label map in canonical orientation.

    `voxels [D, H, W]`: D feet to head, H front to back, W patient's right to left, as
    in a radiological picture and in DICOM's LPS order. `affine` (4, 4) float64 takes
    (d, h, w, 1) to world mm, RAS+. `grid` is that of the file at `path`.
    """

    voxels: np.ndarray
    affine: np.ndarray
    grid: Grid
    path: str

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between voxel centres, (3,) float64 in D, H, W order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def sizes_text(sizes: Sequence[float] | np.ndarray) -> str:
    """Returns sizes as in "2.5 x 0.8 x 0.8"."""
    return " x ".join(f"{size:.6g}" for size in sizes)
