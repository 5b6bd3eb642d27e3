"""Finds by the HU how a label map lies on its scan, where its header cannot tell.

The voxels of TCIA's Pancreas-CT label maps belong to those of the DICOM slices by
index, but their headers do not describe the scans, and DICOM readers differ in the
direction of slices and rows. So all eight ways to flip the axes are compared: an organ
is soft tissue, and some of what surrounds it is fat.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, canonical, from_canonical

NOT_TISSUE = ("lung", "trachea", "airway", "bronch", "fat", "bone", "skull", "label_")
SOFT_TISSUE_HU = (0, 200)
# Share of soft tissue under a label map that lies right. Under a flipped one it is
# about a half, inside and outside the organ alike.
MIN_SOFT_SHARE = 0.6
# How much better the best flip must be than the second best.
MIN_MARGIN = 0.1
_RING_MM = 4.0
_SAMPLE_MM = 3.0  # of mirrored_axes: enough to tell tissue from fat


def align_to_image(labels: Volume, image: Volume) -> Volume:
    """Returns `labels` on the grid of `image`, index by index, with the best flip.

    Raises `BadData` where the sizes differ, or as `best_flip` does.
    """
    stored = from_canonical(labels.voxels, labels.grid)
    if stored.shape != image.grid.shape:
        raise BadData(
            f"{labels.path}: {_format_shape(stored.shape)} voxels, its scan has "
            f"{_format_shape(image.grid.shape)}; is this the label map of "
            f"{image.path}?"
        )
    voxels, _ = canonical(stored, image.grid.affine)
    axes = best_flip(image, voxels, labels.path)
    return Volume(
        voxels=np.ascontiguousarray(np.flip(voxels, axes)),
        affine=image.affine,
        grid=image.grid,
        path=labels.path,
    )


def mirrored_axes(
    image: Volume, labels: np.ndarray, organs: Mapping[str, Collection[int]]
) -> tuple[str, ...] | None:
    """Those of "D", "H", "W" to flip for the organs to lie best on soft tissue.

    `labels [D, H, W]` is on the grid of `image`, `organs` has the label values of each.
    Returns None where this cannot be decided: bodies are nearly symmetric, and not
    every organ is soft tissue.
    """
    soft = [v for name, values in organs.items() if soft_tissue(name) for v in values]
    steps = np.maximum(np.rint(_SAMPLE_MM / image.spacing_mm), 1).astype(int)
    every = tuple(slice(None, None, step) for step in steps)
    affine = image.affine @ np.diag([*steps, 1])
    try:
        axes = best_flip(
            replace(image, voxels=image.voxels[every], affine=affine),
            np.isin(labels[every], soft),
            image.path,
        )
    except BadData:
        return None
    return tuple("DHW"[axis] for axis in axes)


def soft_tissue(organ: str) -> bool:
    """Whether an organ of that name is soft tissue."""
    return not any(word in organ.lower() for word in NOT_TISSUE)


def best_flip(image: Volume, label: np.ndarray, path: str) -> tuple[int, ...]:
    """Axes of `label [D, H, W]` to flip so that it lies on its organ in `image`.

    Each of the eight choices is scored by the share of soft tissue under the label
    minus that in the ring around it. Raises `BadData`, beginning with `path`, where
    nothing is labelled, the best choice is not on soft tissue, or the second best is
    about as good.
    """
    inside, ring = _inside_and_ring(label, image.spacing_mm)
    if not len(inside) or not len(ring):
        raise BadData(f"{path}: nothing is labelled, so its orientation is unknown")
    scored = []
    for choice in product((False, True), repeat=3):
        under = _values(image.voxels, inside, choice)
        score = _soft_share(under) - _soft_share(_values(image.voxels, ring, choice))
        scored.append((score, choice, under))
    scored.sort(key=lambda entry: entry[0], reverse=True)
    (score, choice, under), (second_score, second_choice, _) = scored[:2]
    fit = (
        f"{path}: fits its scan best with {_axis_names(choice)} flipped, "
        f"{np.median(under):.0f} HU (median) and {_soft_share(under):.0%} soft tissue "
        "under it"
    )
    if _soft_share(under) < MIN_SOFT_SHARE:
        raise BadData(
            f"{fit}, at least {MIN_SOFT_SHARE:.0%} expected; is it the label map of "
            f"{image.path}?"
        )
    if score - second_score < MIN_MARGIN:
        raise BadData(
            f"{fit}, but with {_axis_names(second_choice)} flipped it is about as good "
            f"(soft tissue inside minus outside {score:+.2f} against "
            f"{second_score:+.2f}); give this case a label map with a correct header, "
            "by --source=nifti"
        )
    return tuple(axis for axis in range(3) if choice[axis])


def _inside_and_ring(
    label: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N, 3) of the labelled voxels, and of those around them in each slice."""
    inside = np.argwhere(label)
    if not len(inside):
        return inside, inside
    rows, columns = (max(1, round(_RING_MM / float(s))) for s in spacing_mm[1:])
    margin = np.array([0, rows, columns])
    low = np.maximum(inside.min(0) - margin, 0)
    high = np.minimum(inside.max(0) + margin + 1, label.shape)
    box = label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] != 0
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    disc = ((y / rows) ** 2 + (x / columns) ** 2 <= 1)[None]
    # Imported late: it takes a good part of a program's start-up.
    from scipy import ndimage

    ring = ndimage.binary_dilation(box, disc) & ~box
    return inside, np.argwhere(ring) + low


def _values(
    voxels: np.ndarray, index: np.ndarray, flipped: tuple[bool, ...]
) -> np.ndarray:
    """Voxels at the indices (N, 3) of an array whose axes are flipped."""
    last = np.array(voxels.shape) - 1
    return voxels[tuple(np.where(flipped, last - index, index).T)]


def _soft_share(hu: np.ndarray) -> float:
    low, high = SOFT_TISSUE_HU
    return float(((hu >= low) & (hu <= high)).mean())


def _axis_names(choice: tuple[bool, ...]) -> str:
    names = ("slices", "rows", "columns")
    return " and ".join(n for n, c in zip(names, choice, strict=True) if c) or "nothing"


def _format_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
