"""What every stage knows of a scan: its voxels, where they lie, whence they came."""

from dataclasses import dataclass

import numpy as np

# 16 GiB of int16: no CT is near it; a header or a spacing that leads there is wrong.
MOST_VOXELS = 2**33


@dataclass(frozen=True)
class Grid:
    """A scan's own grid as its file stores it.

    `shape` in the file's own axis order; `affine` (4, 4) float64 takes a file index
    to world mm, RAS+ (nibabel's convention).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Volume:
    """A scan or label map in canonical orientation.

    `voxels [D, H, W]`: D feet to head, H front to back, W patient's right to left,
    which is the radiological picture and DICOM's LPS order. `affine` (4, 4) float64
    takes (d, h, w, 1) to world mm, RAS+. `grid` is that of the file at `path`.
    """

    voxels: np.ndarray
    affine: np.ndarray
    grid: Grid
    path: str

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between voxel centres, (3,) float64 in D, H, W order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)
