"""Draws tissues as ellipsoids and tubes into a CT scan and its label map.

World coordinates are in mm: x to the patient's left, y to the back, z to the head, with
the body's axis at x = y = 0 and its lower end at z = 0. Shapes have random places and
sizes, in coordinates that are smoothly deformed; a tube is the union of balls along a
curve. HU are those of a portal-venous scan.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

SPLEEN, PANCREAS, KIDNEY = 1, 2, 3
AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, BONE_HU = -1000, -850, -100, 55, 280


class Abdomen:
    """A patient on a canonical grid, painted tissue by tissue: `hu` and `label`."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: Sequence[int],
        spacing_mm: np.ndarray,
        height_mm: float,
    ) -> None:
        """Starts with air. `shape` and `spacing_mm` are along D, H, W; `height_mm` is
        the height of all organs, which the grid may cut at both ends."""
        self.rng = rng
        self.size = rng.uniform(0.88, 1.12)  # relative to an average patient
        self.fat = rng.uniform(0.06, 0.2)  # fat under the skin, a share of the radius
        axes = [
            ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
            for n, s in zip(shape, spacing_mm, strict=True)
        ]
        axes[0] += height_mm / 2
        self.z, self.y, self.x = self._deformed(axes)
        self.hu = np.full(shape, AIR_HU, np.float32)
        self.label = np.zeros(shape, np.uint8)
        # Where organs may lie: everywhere until the trunk is painted.
        self.cavity = np.ones(shape, bool)
        self._axes = axes

    def _deformed(self, axes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Adds to each coordinate slow waves of some mm along the other two axes."""
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        bent = []
        for own, others in ((z, (y, x)), (y, (z, x)), (x, (z, y))):
            field = own
            for other in others:
                wave = 2 * np.pi / self.rng.uniform(90, 180)
                phase = self.rng.uniform(0, 2 * np.pi)
                amplitude = self.rng.uniform(1, 4)
                field = field + np.float32(amplitude) * np.sin(
                    np.float32(wave) * other + np.float32(phase)
                )
            bent.append(np.ascontiguousarray(np.broadcast_to(field, self._shape(axes))))
        return bent

    @staticmethod
    def _shape(axes: Sequence[np.ndarray]) -> tuple[int, ...]:
        return tuple(len(axis) for axis in axes)

    def jitter(self, point: Sequence[float], deviation_mm: float) -> np.ndarray:
        """Scales a point (x, y, z) to the patient's size and moves it at random."""
        return np.asarray(point) * self.size + self.rng.normal(0, deviation_mm, 3)

    def _box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
        """Slices around all voxels that may lie between two points (x, y, z).

        The deformation moves a voxel by less than the margin of 9 mm.
        """
        slices = []
        for axis, a, b in zip(self._axes, low[::-1], high[::-1], strict=True):
            start = np.searchsorted(axis, a - 9)
            slices.append(slice(int(start), int(np.searchsorted(axis, b + 9))))
        return tuple(slices)

    def ellipsoid(
        self,
        centre: ArrayLike,
        radii: ArrayLike,
        roughness_mm: float = 0.0,
    ) -> tuple[tuple[slice, ...], np.ndarray]:
        """Returns (box, distance): the approximate distance of each voxel of the box
        from the surface in mm, negative inside. `centre` and `radii` are x, y, z in
        mm."""
        middle, reach_mm = np.asarray(centre, float), np.asarray(radii, float)
        box = self._box(middle - reach_mm, middle + reach_mm)
        parts = [
            (field[box] - np.float32(c)) / np.float32(r)
            for field, c, r in zip(
                (self.x, self.y, self.z), middle, reach_mm, strict=True
            )
        ]
        reach = np.sqrt(sum(p * p for p in parts))
        distance = (reach - 1) * np.float32(reach_mm.min())
        return box, distance + self._lobes(box, roughness_mm)

    def tube(
        self,
        points: Sequence[ArrayLike],
        radii: ArrayLike,
        roughness_mm: float = 0.0,
    ) -> tuple[tuple[slice, ...], np.ndarray]:
        """Returns (box, distance) as `ellipsoid`, for balls along a curve.

        The curve goes through `points` (x, y, z) in mm, `radii` are those of the balls
        there.
        """
        curve, thick = _curve(np.asarray(points), np.asarray(radii))
        reach = thick.max() + roughness_mm
        box = self._box(curve.min(0) - reach, curve.max(0) + reach)
        x, y, z = self.x[box], self.y[box], self.z[box]
        distance = np.full(x.shape, np.inf, np.float32)
        for (cx, cy, cz), r in zip(curve.astype(np.float32), thick, strict=True):
            d = (x - cx) ** 2 + (y - cy) ** 2
            d += (z - cz) ** 2
            np.sqrt(d, out=d)
            d -= np.float32(r)
            np.minimum(distance, d, out=distance)
        return box, distance + self._lobes(box, roughness_mm)

    def _lobes(self, box: tuple[slice, ...], roughness_mm: float) -> np.ndarray | int:
        """Unevenness of the surface in mm, with wavelengths of 10 to 25 mm."""
        if not roughness_mm:
            return 0
        waves = 0
        for field in (self.x, self.y, self.z):
            wave = np.float32(2 * np.pi / self.rng.uniform(10, 25))
            waves = waves + np.sin(
                wave * field[box] + np.float32(self.rng.uniform(0, 6.3))
            )
        return np.float32(roughness_mm) * waves

    def paint(
        self,
        part: tuple[tuple[slice, ...], np.ndarray],
        hu: float,
        label: int = 0,
        over: Sequence[int] = (0,),
        within_mm: float = 0.0,
    ) -> None:
        """Sets `hu` and `label` of the voxels deeper than `within_mm` in `part`.

        Only voxels whose label so far is in `over` are changed.
        """
        box, distance = part
        inside = (distance < -within_mm) & np.isin(self.label[box], over)
        inside &= self.cavity[box]
        self.hu[box][inside] = hu
        self.label[box][inside] = label


def _curve(points: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a smooth curve every few mm, and the radii there."""
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    count = max(int(length / 3), 8)
    t = np.linspace(0, len(points) - 1, count)
    order = min(2, len(points) - 1)
    curve = [
        ndimage.map_coordinates(column, [t], order=order, mode="nearest")
        for column in np.column_stack([points, radii]).T.astype(float)
    ]
    return np.stack(curve[:3], -1), curve[3]


def finish(abdomen: Abdomen, spacing_mm: ArrayLike, noise_hu: float) -> np.ndarray:
    """Adds partial volume, tissue texture and noise; returns int16 `[D, H, W]`."""
    rng, hu = abdomen.rng, abdomen.hu
    spacing = np.asarray(spacing_mm)
    smooth = np.asarray(ndimage.gaussian_filter(hu, 0.8 / spacing + 0.25))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, np.minimum(1.2 / spacing, 1.0))
    noise *= np.float32(noise_hu / noise.std())
    texture = rng.standard_normal([max(n // 4, 2) for n in hu.shape], dtype=np.float32)
    zoom = [n / m for n, m in zip(hu.shape, texture.shape, strict=True)]
    texture = np.asarray(ndimage.zoom(texture, zoom, order=1))
    texture = texture[tuple(slice(0, n) for n in hu.shape)]
    tissue = (smooth > -200) & (smooth < 260)
    smooth += noise
    smooth[tissue] += 6 * texture[tissue]
    return np.clip(np.rint(smooth), -1024, 3071).astype(np.int16)
