"""A scan or label map with its geometry, and the grid of the file it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attunet_jax.intensity import AIR_HU, HU_RANGE, clip_hu

if TYPE_CHECKING:
    from attunet_jax.volume.placement import Placement

_INT16 = np.iinfo(np.int16)
# 16 GiB of int16, far above any CT: a header or spacing that leads there is wrong.
MAX_VOXELS = 2**33
# Air is -1000 HU, and noise takes it a little lower: what lies below is padding.
BELOW_AIR_HU = -1200


@dataclass(frozen=True)
class Grid:
    """The grid of a scan as its file stores it.

    `shape` is in the file's own axis order; `affine` (4, 4) float64 takes a file index
    to world mm, RAS+ (nibabel's convention). `placement` has the fields of a NIfTI
    header that this affine was taken from; None for other files.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    placement: "Placement | None" = None


@dataclass(frozen=True)
class Stored:
    """What a file of a scan holds, before anything of it is clipped or converted.

    `type` is that of its numbers, as in "uint8". After the file's own scaling `lowest`
    and `high` are the smallest and the largest value, `low` is the smallest one that
    is no padding, which lies far below air.
    """

    type: str
    lowest: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, type: str) -> "Stored":
        """Takes them from values of any shape."""
        lowest, high = float(values.min()), float(values.max())
        low = lowest
        if lowest < BELOW_AIR_HU <= high:
            low = float(values[values >= BELOW_AIR_HU].min())
        return cls(type, lowest, low, high)

    def joined(self, other: "Stored | None") -> "Stored":
        """Returns that of both parts of a file."""
        if other is None:
            return self
        lows = [part.low for part in (self, other)]
        above = [low for low in lows if low >= BELOW_AIR_HU]
        return Stored(
            self.type,
            min(self.lowest, other.lowest),
            min(above or lows),
            max(self.high, other.high),
        )


@dataclass(frozen=True)
class Volume:
    """A scan or label map in canonical orientation.

    `voxels [D, H, W]`: D feet to head, H front to back, W patient's right to left, as
    in a radiological picture and in DICOM's LPS order. `affine` (4, 4) float64 takes
    (d, h, w, 1) to world mm, RAS+. `grid` is that of the file at `path`. `padding`,
    bool `[D, H, W]`, is what the file says was never scanned, where its values do not
    show it. `stored` says what values the file holds where it was read as a scan.
    """

    voxels: np.ndarray
    affine: np.ndarray
    grid: Grid
    path: str
    padding: np.ndarray | None = None
    stored: Stored | None = None

    @classmethod
    def of_array(
        cls, voxels: np.ndarray, spacing_mm: Sequence[float] | np.ndarray
    ) -> "Volume":
        """Makes a volume of an array `[D, H, W]` in canonical orientation.

        Other types than int16 become float32. The first voxel lies at the origin of the
        world. Raises `ValueError` where `voxels` is no scan or `spacing_mm` (D, H, W)
        is not three lengths above 0.
        """
        if voxels.ndim != 3 or not voxels.size or voxels.dtype.kind not in "iuf":
            raise ValueError(
                f"an array of {voxels.dtype} {voxels.shape} is no scan [D, H, W] in HU"
            )
        if not np.isfinite(voxels).all():
            raise ValueError("voxels are NaN or infinite; air is -1024 HU")
        spacing = np.asarray(spacing_mm, float)
        if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
            raise ValueError(f"spacing_mm {spacing_mm} is not three lengths above 0")
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]] = spacing * [1, -1, -1]  # up, back, left
        affine[3, 3] = 1
        if voxels.dtype != np.int16:
            voxels = voxels.astype(np.float32, copy=False)
        depth, height, width = voxels.shape
        return cls(voxels, affine, Grid((depth, height, width), affine), "array")

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between voxel centres, (3,) float64 in D, H, W order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def as_ct(
    scan: Volume, hu_range: Sequence[int] = HU_RANGE, *, in_place: bool = False
) -> Volume:
    """Returns the scan with air for padding and its values within `hu_range`.

    What lies below the range is padding too: -2000 or -3024 outside a round field of
    view. With `in_place` the scan's own voxels are changed, else never.
    """
    voxels = scan.voxels
    if scan.padding is not None:
        if not in_place:
            voxels = voxels.copy()
        voxels[scan.padding] = AIR_HU
        in_place = True
    voxels = clip_hu(voxels, hu_range, in_place=in_place)
    return replace(scan, voxels=voxels, padding=None)


def sizes_text(sizes: Sequence[float] | np.ndarray) -> str:
    """Returns sizes as in "2.5 x 0.8 x 0.8"."""
    return " x ".join(f"{size:.6g}" for size in sizes)


def fits_int16(values: np.ndarray) -> bool:
    """Returns whether all values are whole numbers in the range of int16."""
    if values.dtype.kind in "iu" and np.can_cast(values.dtype, np.int16):
        return True
    if values.dtype.kind == "f" and not (np.rint(values) == values).all():
        return False
    return bool(_INT16.min <= values.min() and values.max() <= _INT16.max)
