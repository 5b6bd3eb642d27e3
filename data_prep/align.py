"""A label map whose header is not to be trusted and its scan in; it laid on that, out.

The voxels of TCIA's Pancreas-CT labels are those of the DICOM slices, index by index,
but their headers say nothing true of where these lie, and readers of DICOM differ in
which way slices and rows run. So all eight ways to flip the axes are tried: an organ is
soft tissue, and just outside it there is fat as well.

A scan and label map of one shape in; which axes of the labels seem mirrored, out.

Headers may agree and voxels not: a label map saved by a program that flips an axis.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, canonical, from_canonical

SOFT_TISSUE_HU = (0, 200)
# Share of soft tissue under a label that lies right; under one that does not it is
# about a half, and the shares inside and outside are alike.
LEAST_SOFT_SHARE = 0.6
LEAST_LEAD = 0.1
_SHELL_MM = 4.0


def laid_on_image(labels: Volume, image: Volume) -> Volume:
    """`labels` on the grid of `image`, by index, flipped where the HU say so.

    Raises `BadData` where the sizes differ, nothing is labelled, the best flip is not
    on soft tissue, or another is about as good.
    """
    stored = from_canonical(labels.voxels, labels.grid)
    if stored.shape != image.grid.shape:
        raise BadData(
            f"{labels.path}: {_by(stored.shape)} voxels, its scan has "
            f"{_by(image.grid.shape)}; is this the label map of {image.path}?"
        )
    voxels, _ = canonical(stored, image.grid.affine)
    axes = best_flip(image, voxels, labels.path)
    return Volume(
        voxels=np.ascontiguousarray(np.flip(voxels, axes)),
        affine=image.affine,
        grid=image.grid,
        path=labels.path,
    )


def best_flip(image: Volume, label: np.ndarray, path: str) -> tuple[int, ...]:
    """Axes of `label [D, H, W]` to flip so that it lies on its organ in `image`.

    Of the eight choices the one with the greatest lead of soft tissue under the label
    over the ring outside it. Raises `BadData`, beginning with `path`.
    """
    inside, outside = _inside_and_ring(label, image.spacing_mm)
    if not len(inside) or not len(outside):
        raise BadData(f"{path}: nothing is labelled; how it lies cannot be told")
    found = []
    for choice in product((False, True), repeat=3):
        under = _read(image.voxels, inside, choice)
        lead = _soft_share(under) - _soft_share(_read(image.voxels, outside, choice))
        found.append((lead, choice, under))
    found.sort(key=lambda entry: entry[0], reverse=True)
    (lead, choice, under), (second, other, _) = found[:2]
    said = (
        f"{path}: best laid on its scan with {_axes(choice)} flipped, "
        f"{np.median(under):.0f} HU (median) and {_soft_share(under):.0%} soft tissue "
        "under it"
    )
    if _soft_share(under) < LEAST_SOFT_SHARE:
        raise BadData(
            f"{said}, at least {LEAST_SOFT_SHARE:.0%} expected; is it the label map of "
            f"{image.path}?"
        )
    if lead - second < LEAST_LEAD:
        raise BadData(
            f"{said}, but with {_axes(other)} flipped it is about as good (soft tissue "
            f"inside over outside {lead:+.2f} against {second:+.2f}); give this case a "
            "label map with a true header, by --source=nifti"
        )
    return tuple(axis for axis in range(3) if choice[axis])


def _inside_and_ring(
    label: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N, 3) of labelled voxels, and of those around them in their slices."""
    inside = np.argwhere(label)
    if not len(inside):
        return inside, inside
    rows, columns = (max(1, round(_SHELL_MM / float(s))) for s in spacing_mm[1:])
    margin = np.array([0, rows, columns])
    low = np.maximum(inside.min(0) - margin, 0)
    high = np.minimum(inside.max(0) + margin + 1, label.shape)
    box = label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] != 0
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    disc = ((y / rows) ** 2 + (x / columns) ** 2 <= 1)[None]
    # Late: it takes a good part of a program's start.
    from scipy import ndimage

    ring = ndimage.binary_dilation(box, disc) & ~box
    return inside, np.argwhere(ring) + low


def _read(
    voxels: np.ndarray, index: np.ndarray, flipped: tuple[bool, ...]
) -> np.ndarray:
    last = np.array(voxels.shape) - 1
    return voxels[tuple(np.where(flipped, last - index, index).T)]


def _soft_share(hu: np.ndarray) -> float:
    low, high = SOFT_TISSUE_HU
    return float(((hu >= low) & (hu <= high)).mean())


def _axes(choice: tuple[bool, ...]) -> str:
    names = ("slices", "rows", "columns")
    return " and ".join(n for n, c in zip(names, choice, strict=True) if c) or "nothing"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


_STEP_MM = 3.0  # enough to tell tissue from fat; a flip is off by far more


def mirrored_axes(image: Volume, organs: np.ndarray) -> tuple[str, ...] | None:
    """Of "D", "H", "W" those to flip for the organs to lie on soft tissue best.

    `organs [D, H, W]` bool, voxel by voxel on `image`. None where it cannot be
    told: bodies are nearly symmetric, and not every organ is soft tissue.
    """
    steps = np.maximum(np.rint(_STEP_MM / image.spacing_mm), 1).astype(int)
    thin = tuple(slice(None, None, step) for step in steps)
    affine = image.affine @ np.diag([*steps, 1])
    try:
        axes = best_flip(
            replace(image, voxels=image.voxels[thin], affine=affine),
            organs[thin],
            image.path,
        )
    except BadData:
        return None
    return tuple("DHW"[axis] for axis in axes)
