"""The header fields that place a NIfTI file's voxels in the world, and who reads which.

A header may place them by its sform, by its qform with the spacing of pixdim, or by
that spacing alone. This project takes the first that is there, as nibabel (and with it
nnU-Net and TotalSegmentator) does. ITK (3D Slicer, ITK-SNAP, SimpleITK) often prefers
the qform, and always takes the spacing of pixdim. A label map with the scan's own
fields lies on the scan for both, whatever they say.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from attunet_jax.volume.volume import sizes_text

# Outside this range a typing error, or a unit that is not the header's, is likelier.
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100
# Lengths of a header's unit, by the lower three bits of xyzt_units; other codes, and
# 0 for "unknown", mean mm for every reader.
_UNIT_MM = {1: 1000.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
# Of b*b + c*c + d*d above 1 in a quaternion: it is 2e-7 in float32, and up to 0.01
# where a writer keeps two or three digits. Scaled to 1 its direction is as exact.
_QUATERNION_EXCESS = 0.01
# Of the unit axis vectors; the steepest tilt of a gantry still gives 0.8.
_MIN_DETERMINANT = 1e-3
# ITK's own tolerance for axes at right angles; it does not use a skewed sform.
_ITK_RIGHT_ANGLES = 1e-4
# ITK's code of a sform that it prefers to a qform.
_SCANNER = 1
_RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


# Two places of a voxel that differ by less are equal: headers round to float32, and
# programs to four digits or so.
DOUBT_MM = 0.1


class BadPlacement(ValueError):
    """The fields place the voxels nowhere; the message lacks the file's name."""


@dataclass(frozen=True)
class Placement:
    """The fields as they stand in the file, in its own unit.

    `pixdim` is qfac and the three spacings, `srow` the rows of the sform (12 numbers).
    """

    units: int
    pixdim: tuple[float, ...]
    qform_code: int
    quaternion: tuple[float, ...]
    qoffset: tuple[float, ...]
    sform_code: int
    srow: tuple[float, ...]

    @classmethod
    def of_header(cls, fields: Any) -> "Placement":
        """Takes the fields from a NIfTI header of nibabel's."""
        named = [[float(fields[f"{name}"]) for name in group] for group in _NAMES]
        return cls(
            units=int(fields["xyzt_units"]),
            pixdim=tuple(float(n) for n in fields["pixdim"][:4]),
            qform_code=int(fields["qform_code"]),
            quaternion=tuple(named[0]),
            qoffset=tuple(named[1]),
            sform_code=int(fields["sform_code"]),
            srow=tuple(float(n) for row in _ROWS for n in fields[row]),
        )

    @classmethod
    def of_numbers(cls, numbers: np.ndarray) -> "Placement":
        """Makes it of what `numbers` returned."""
        units, *rest = (float(n) for n in numbers)
        pixdim, (qform_code, *rest) = tuple(rest[:4]), rest[4:]
        quaternion, qoffset = tuple(rest[:3]), tuple(rest[3:6])
        sform_code, *srow = rest[6:]
        codes = int(qform_code), int(sform_code)
        return cls(
            int(units), pixdim, codes[0], quaternion, qoffset, codes[1], tuple(srow)
        )

    def numbers(self) -> np.ndarray:
        """Returns all fields as one vector, (25,) float64."""
        q = (self.qform_code, *self.quaternion, *self.qoffset)
        return np.array(
            [self.units, *self.pixdim, *q, self.sform_code, *self.srow], float
        )

    def write_into(self, fields: Any) -> None:
        """Sets the fields of a NIfTI header of nibabel's."""
        fields["xyzt_units"] = self.units
        fields["pixdim"][:4] = self.pixdim
        fields["qform_code"], fields["sform_code"] = self.qform_code, self.sform_code
        values = (self.quaternion, self.qoffset)
        for group, numbers in zip(_NAMES, values, strict=True):
            for name, number in zip(group, numbers, strict=True):
                fields[name] = number
        for row, numbers in zip(_ROWS, np.reshape(self.srow, (3, 4)), strict=True):
            fields[row] = numbers

    def affine(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the affine (4, 4) from a file index to world mm, RAS+.

        Raises `BadPlacement`.
        """
        stored = self._stored_affine(shape)
        lengths = np.linalg.norm(stored[:3, :3], axis=0)
        unit_mm = self.unit_mm(lengths)
        if not _possible(lengths * unit_mm):
            raise BadPlacement(
                f"spacing of {sizes_text(lengths * unit_mm)} mm is impossible; set it "
                "in the header"
            )
        if abs(np.linalg.det(stored[:3, :3] / lengths)) < _MIN_DETERMINANT:
            raise BadPlacement(
                "affine is singular (two axes are parallel); set it again"
            )
        return np.diag([unit_mm, unit_mm, unit_mm, 1]) @ stored

    def unit_mm(self, lengths: np.ndarray) -> float:
        """Returns the length in mm of one unit, for axes of `lengths` in that unit.

        It is the header's unit unless only mm give a possible spacing: many writers set
        a unit that their numbers do not have, and nibabel takes all numbers as mm.
        """
        unit_mm = _UNIT_MM.get(self.units & 7, 1.0)
        if not _possible(lengths * unit_mm) and _possible(lengths):
            return 1.0
        return unit_mm

    def doubt(self, shape: tuple[int, ...], affine: np.ndarray) -> str | None:
        """Says where `affine`, that of this placement, is not what all readers take.

        `shape` is the file's.
        """
        stored = self._stored_affine(shape)
        lengths = np.linalg.norm(stored[:3, :3], axis=0)
        declared = _UNIT_MM.get(self.units & 7, 1.0)
        if self.unit_mm(lengths) != declared:
            return (
                f"its unit is {_UNIT_NAMES[self.units & 7]}, which makes spacings of "
                f"{sizes_text(lengths * declared)} mm: its numbers are taken as mm"
            )
        if self.sform_code <= 0 and self.qform_code <= 0:
            return (
                "neither qform nor sform: taken as nibabel does, x to the left and y "
                "to the front; in ITK (3D Slicer) y runs to the back"
            )
        used = "sform" if self.sform_code > 0 else "qform"
        itk = self.itk_affine()
        if itk is None:
            return f"placed by its {used}; ITK (3D Slicer) refuses its axes"
        apart_mm = corner_distance_mm(shape, affine, itk)
        if apart_mm <= DOUBT_MM:
            return None
        return (
            f"placed by its {used}; ITK (3D Slicer) places it up to {apart_mm:.3g} mm "
            "off, by another of qform, sform and pixdim"
        )

    def itk_affine(self) -> np.ndarray | None:
        """Returns the affine that ITK takes from the fields, or None where it fails.

        (4, 4) from a file index to world mm, RAS+. Spacings are those of pixdim, in the
        header's unit. Directions and origin are the sform's where its axes are at right
        angles and the qform has no code, or the sform's code is 1; else the qform's;
        without either DICOM's axes.
        """
        spacing = np.array(
            [n if n and np.isfinite(n) else 1.0 for n in self.pixdim[1:]]
        )
        if self.sform_code <= 0 and self.qform_code <= 0:
            chosen = _RAS_OF_LPS
        elif self._sform_for_itk():
            chosen = self._sform()
        elif self.qform_code > 0:
            chosen = self._qform(np.where(spacing > 0, spacing, 1.0), strict=False)
        else:
            return None
        affine = chosen.copy()
        affine[:3, :3] *= spacing / np.linalg.norm(chosen[:3, :3], axis=0)
        unit_mm = _UNIT_MM.get(self.units & 7, 1.0)
        affine[:3] *= unit_mm
        return affine if np.isfinite(affine).all() else None

    def _sform_for_itk(self) -> bool:
        if self.sform_code <= 0:
            return False
        if self.qform_code > 0 and self.sform_code != _SCANNER:
            return False
        columns = self._sform()[:3, :3]
        with np.errstate(all="ignore"):
            unit = columns / np.linalg.norm(columns, axis=0)
            return bool(np.abs(unit @ unit.T - np.eye(3)).max() <= _ITK_RIGHT_ANGLES)

    def _stored_affine(self, shape: tuple[int, ...]) -> np.ndarray:
        """As `affine`, in the header's own unit."""
        spacing = np.array(self.pixdim[1:])
        if not (np.isfinite(spacing) & (spacing > 0)).all():
            raise BadPlacement(
                f"spacing of {sizes_text(spacing)} mm is impossible; set it in the "
                "header"
            )
        if self.sform_code > 0:
            affine = self._sform()
        elif self.qform_code > 0:
            affine = self._qform(spacing, strict=True)
        else:  # nibabel's: x runs to the left, the centre is the origin
            affine = np.diag([*(spacing * [-1, 1, 1]), 1.0])
            affine[:3, 3] = -affine[:3, :3] @ (np.array(shape[:3]) - 1) / 2
        if not np.isfinite(affine).all():
            raise BadPlacement(
                "affine holds NaN or infinity; set the orientation again"
            )
        columns = affine[:3, :3]
        if not columns.any():
            raise BadPlacement("affine is all zero; set spacing and orientation again")
        if not np.linalg.norm(columns, axis=0).all():
            raise BadPlacement(
                "affine is singular (an axis has no length); set it again"
            )
        return affine

    def _sform(self) -> np.ndarray:
        return np.vstack([np.reshape(self.srow, (3, 4)), [0, 0, 0, 1]])

    def _qform(self, spacing: np.ndarray, *, strict: bool) -> np.ndarray:
        """Returns the affine of the qform; `strict` refuses what is no rotation."""
        axis = np.array(self.quaternion)
        length = float(axis @ axis)
        if strict and length > 1 + _QUATERNION_EXCESS:
            raise BadPlacement("its qform is not a rotation; set the orientation again")
        if length > 1:
            axis = axis / np.sqrt(length)
        a, (b, c, d) = np.sqrt(max(0.0, 1 - length)), axis
        # The matrix of the unit quaternion a + bi + cj + dk, from the standard.
        rotation = np.array(
            [
                [
                    a * a + b * b - c * c - d * d,
                    2 * (b * c - a * d),
                    2 * (b * d + a * c),
                ],
                [
                    2 * (b * c + a * d),
                    a * a + c * c - b * b - d * d,
                    2 * (c * d - a * b),
                ],
                [
                    2 * (b * d - a * c),
                    2 * (c * d + a * b),
                    a * a + d * d - b * b - c * c,
                ],
            ]
        )
        # Only a qfac below 0 means a mirrored axis: many writers leave it 0.
        qfac = -1.0 if self.pixdim[0] < 0 else 1.0
        affine = np.eye(4)
        affine[:3, :3] = rotation * (spacing * [1, 1, qfac])
        affine[:3, 3] = self.qoffset
        return affine


_NAMES = (
    ("quatern_b", "quatern_c", "quatern_d"),
    ("qoffset_x", "qoffset_y", "qoffset_z"),
)
_ROWS = ("srow_x", "srow_y", "srow_z")


def corner_distance_mm(shape: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest distance of equal corners, an upper bound for all voxels."""
    corners = np.array([*product(*((0, n - 1) for n in shape))])
    return float(
        np.linalg.norm((a - b)[:3] @ np.c_[corners, np.ones(8)].T, axis=0).max()
    )


def _possible(lengths_mm: np.ndarray) -> bool:
    within = (lengths_mm >= MIN_SPACING_MM) & (lengths_mm <= MAX_SPACING_MM)
    return bool(within.all())
