"""Orders and checks the slices of a DICOM series, and derives their affine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom.series import SliceHeader
from attunet_jax.volume.placement import MAX_SPACING_MM, MIN_SPACING_MM
from attunet_jax.volume.volume import MAX_VOXELS

# Scanners round positions to a tenth of a mm or finer; slices may be off by this and by
# a fraction of their distance.
_UNEVEN_MM, _UNEVEN_FRACTION = 0.06, 0.05
# More than this sideways over the whole stack is a tilted gantry, not rounding.
_SHEAR_MM = 0.5
# Direction cosines are text of three digits or more, in each slice rounded by itself.
_COSINE = 1e-3
# Of a spacing: PixelSpacing is text as well, of 0.703 for 0.703125 in some exports.
_SPACING = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def stack(
    folder: Path, headers: Sequence[SliceHeader]
) -> tuple[list[SliceHeader], np.ndarray]:
    """Returns the slices sorted along the normal of their planes, and their affine.

    The affine (4, 4) float64 takes (column, row, slice) to world mm, RAS+. Columns,
    rows and normal form a right-handed system. Raises `BadData` where slices differ in
    size or direction, are missing, double, unevenly spaced or sheared by a tilted
    gantry.
    """
    _check_alike(headers)
    first = headers[0]
    along_columns, along_rows, normal = _axes(headers)
    if len(headers) < 2:
        raise BadData(f"{first.path}: the only slice in {folder}; a scan has several")
    order = np.argsort(heights_of(headers), kind="stable")
    ordered = [headers[index] for index in order]
    heights = heights_of(headers)[order]
    _check_gaps(ordered, heights)
    step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    _check_line(folder, ordered, step, normal)
    between_rows, between_columns = np.median([h.spacing_mm for h in headers], axis=0)
    affine = np.eye(4)
    affine[:3, 0] = along_columns * between_columns
    affine[:3, 1] = along_rows * between_rows
    affine[:3, 2] = normal * (step @ normal)
    affine[:3, 3] = ordered[0].position
    for length in (between_rows, between_columns, float(step @ normal)):
        if not MIN_SPACING_MM <= length <= MAX_SPACING_MM:
            raise BadData(f"{first.path}: spacing of {length:g} mm is impossible")
    return ordered, _LPS_TO_RAS @ affine


def heights_of(headers: Sequence[SliceHeader]) -> np.ndarray:
    """Returns the place of each slice along the normal of the first one, in mm."""
    normal = np.cross(*headers[0].orientation)
    return np.array([header.position @ normal for header in headers])


def alike_groups(headers: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Divides slices by size, spacing and direction; the largest group comes first.

    Numbers are compared with the first slice of a group, so that two that differ by a
    rounding never fall into two groups.
    """
    groups: list[list[SliceHeader]] = []
    for header in headers:
        for group in groups:
            if _alike(group[0], header):
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=len, reverse=True)


def _alike(a: SliceHeader, b: SliceHeader) -> bool:
    return (
        (a.rows, a.columns) == (b.rows, b.columns)
        and bool(np.allclose(a.spacing_mm, b.spacing_mm, rtol=_SPACING, atol=0))
        and bool(np.abs(a.orientation - b.orientation).max() <= _COSINE)
    )


def _axes(headers: Sequence[SliceHeader]) -> np.ndarray:
    """Returns the directions of columns, rows and normal, (3, 3), at right angles.

    They are the rotation closest to the slices' rounded cosines.
    """
    along_columns, along_rows = np.median([h.orientation for h in headers], axis=0)
    rounded = np.array([along_columns, along_rows, np.cross(along_columns, along_rows)])
    left, _, right = np.linalg.svd(rounded)
    return left @ right


def _check_alike(headers: Sequence[SliceHeader]) -> None:
    """Checks for one size, spacing and direction; names a slice that differs."""
    (usual, *_), *others = alike_groups(headers)
    if others:
        odd = others[0][0]
        raise BadData(
            f"{odd.path}: {_described(odd)}, unlike {usual.path.name}: "
            f"{_described(usual)}; remove what is no slice of this scan"
        )
    first = headers[0]
    if not first.rows * first.columns:
        raise BadData(
            f"{first.path}: a picture of {_described(first)}; export it again"
        )
    if first.rows * first.columns * len(headers) > MAX_VOXELS:
        raise BadData(f"{first.path}: {_described(first)} is too large to be a scan")
    lengths = np.linalg.norm(first.orientation, axis=1)
    if np.abs(lengths - 1).max() > _COSINE or abs(
        first.orientation[0] @ first.orientation[1]
    ) > (_COSINE):
        raise BadData(
            f"{first.path}: ImageOrientationPatient is no pair of directions at right "
            "angles; export the series again"
        )


def _described(header: SliceHeader) -> str:
    directions = ", ".join(f"{n:.3g}" for n in header.orientation.ravel())
    return (
        f"{header.rows} x {header.columns} pixels of {header.spacing_mm[0]:g} x "
        f"{header.spacing_mm[1]:g} mm along ({directions})"
    )


def _check_gaps(ordered: Sequence[SliceHeader], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    narrowest, widest = int(gaps.argmin()), int(gaps.argmax())
    if gaps[narrowest] <= max(0.5 * usual, MIN_SPACING_MM):
        a, b = ordered[narrowest], ordered[narrowest + 1]
        raise BadData(
            f"{b.path}: a second slice at the position of {a.path.name} "
            f"({gaps[narrowest]:.3g} mm apart, others {usual:.3g} mm); keep one for "
            "each position"
        )
    if gaps[widest] >= 1.5 * usual:
        a, b = ordered[widest], ordered[widest + 1]
        raise BadData(
            f"{b.path}: {round(gaps[widest] / usual) - 1} slices are missing between "
            f"this and {a.path.name} ({gaps[widest]:.3g} mm apart, others {usual:.3g} "
            "mm); get the series again"
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    off = np.abs(heights - even)
    if off.max() > _UNEVEN_MM + _UNEVEN_FRACTION * usual:
        raise BadData(
            f"{ordered[int(off.argmax())].path}: slices are unevenly spaced, "
            f"{gaps.min():.3g} to {gaps.max():.3g} mm apart; convert the series to "
            "NIfTI with a tool that resamples it"
        )


def _check_line(
    folder: Path, ordered: Sequence[SliceHeader], step: np.ndarray, normal: np.ndarray
) -> None:
    """Checks that no slice lies sideways, all by a tilted gantry or a single one."""
    upward = float(step @ normal)
    sideways = step - upward * normal
    shear = float(np.linalg.norm(sideways))
    # A normal of rounded cosines is off by as much, over the whole stack.
    allowed_mm = max(_SHEAR_MM, _COSINE * upward * (len(ordered) - 1))
    if shear * (len(ordered) - 1) > allowed_mm:
        degrees = np.degrees(np.arctan2(shear, upward))
        raise BadData(
            f"{folder}: gantry tilt of {degrees:.1f} degrees: each slice lies "
            f"{shear:.3g} mm sideways of the one below; convert the series to NIfTI "
            "with a tool that corrects it (dcm2niix: the file with _Tilt)"
        )
    positions = np.array([header.position for header in ordered])
    line = ordered[0].position + np.outer(np.arange(len(ordered)), step)
    off = positions - line
    off -= np.outer(off @ normal, normal)
    sideways_mm = np.linalg.norm(off, axis=1)
    if sideways_mm.max() > _SHEAR_MM:
        raise BadData(
            f"{ordered[int(sideways_mm.argmax())].path}: lies "
            f"{sideways_mm.max():.3g} mm sideways of the other slices; remove what is "
            "no slice of this scan"
        )
