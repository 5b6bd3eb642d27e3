"""Describes how a label map's grid differs from its image's, and suggests a fix.

Nothing is changed: only a look at the pictures tells which of two headers is right.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from attunet_jax.volume import Volume, different_grids, max_corner_distance_mm

# Of a voxel, over the whole scan: more than an affine in float32 loses.
_SAME_VOX = 0.01
COPY_AFFINE = "copy the image's qform, sform and pixdim into the label's header"


def compare(
    image: Volume, labels: Volume, mirrored: Sequence[str] | None = None
) -> dict:
    """Returns `max_corner_distance_mm`, `difference` and `suggested_fix`.

    The distance is None where the shapes differ, the words are None where both lie on
    one grid. `mirrored` is what `mirrored_axes` returns for the labels as they are
    after `align_by_index`.
    """
    distance_mm = max_corner_distance_mm(image, labels)
    difference = different_grids(image, labels)
    return {
        "max_corner_distance_mm": None
        if distance_mm is None
        else round(distance_mm, 4),
        "difference": difference,
        "suggested_fix": None
        if difference is None
        else suggested_fix(image, labels, mirrored),
    }


def suggested_fix(
    image: Volume, labels: Volume, mirrored: Sequence[str] | None = None
) -> str:
    """What to do with a label map that lies on another grid than its image."""
    if image.grid.shape == labels.grid.shape:
        return _header_fix(image, labels, mirrored)
    share = overlap(image, labels)
    if share == 0:
        return (
            f"the two lie {_gap_mm(image, labels):.0f} mm apart in the world: most "
            "likely of different scans; find the label map of this one"
        )
    inside = f"{share:.0%} of the label map lies inside the image: "
    if sorted(image.voxels.shape) == sorted(labels.voxels.shape) and share < 0.99:
        return (
            f"{inside}the axes of one are most likely named wrongly; put those of the "
            f"label map in the image's order and {COPY_AFFINE}"
        )
    # From label index to image index: the identity and an offset for equal voxels.
    index_map = np.linalg.solve(image.affine, labels.affine)
    alike = np.abs(index_map[:3, :3] - np.eye(3)) * labels.voxels.shape < _SAME_VOX
    offset = index_map[:3, 3]
    if alike.all() and (np.abs(offset - np.rint(offset)) < _SAME_VOX).all():
        before = np.rint(offset).astype(int)
        after = np.array(image.voxels.shape) - labels.voxels.shape - before
        return (
            f"{inside}the voxels fit, so it was cut out; pad it (cut where negative) "
            f"by {_join(before)} voxels before and {_join(after)} after (D x H x W)"
        )
    return (
        f"{inside}resample the label map onto the image's grid by nearest neighbour, "
        "if the outlines fit in the pictures (drawn by the headers)"
    )


def _header_fix(image: Volume, labels: Volume, mirrored: Sequence[str] | None) -> str:
    """For files of equal shape: their voxels most likely fit by index."""
    first, second = image.grid.affine, labels.grid.affine
    spacings = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (first, second)]
    if (np.abs((first - second)[:3, :3]) * image.grid.shape < 1e-3).all():
        shift = second[:3, 3] - first[:3, 3]
        what = f"only the origin differs, by {_join(shift)} mm (x x y x z)"
    elif np.allclose(*spacings, rtol=1e-3):
        what = "the directions of axes differ"
    else:
        what = "the spacings differ"
    if mirrored is None:
        return (
            f"{what}: {COPY_AFFINE}, if the outlines fit in the pictures (drawn by "
            "index); flip its voxels where they are mirrored"
        )
    if mirrored:
        axes = " and ".join(mirrored)
        return (
            f"{what}, and by the HU its voxels are mirrored: flip {axes} and "
            f"{COPY_AFFINE}"
        )
    return f"{what}, and by the HU its voxels fit index by index: {COPY_AFFINE}"


def overlap(image: Volume, labels: Volume) -> float:
    """Share of the label map's bounding box that lies in the image's, in the world."""
    (low, high), (first, last) = _box(image), _box(labels)
    inside = np.clip(np.minimum(high, last) - np.maximum(low, first), 0, None)
    return float(np.prod(inside / (last - first)))


def _gap_mm(image: Volume, labels: Volume) -> float:
    (low, high), (first, last) = _box(image), _box(labels)
    return float(np.linalg.norm(np.clip(np.maximum(low - last, first - high), 0, None)))


def _box(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner in world mm, half a voxel beyond the voxel centres."""
    ends = product(*((-0.5, n - 0.5) for n in volume.voxels.shape))
    corners = np.array([[*end, 1] for end in ends]) @ volume.affine[:3].T
    return corners.min(0), corners.max(0)


def _join(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in (numbers + 0.0).tolist())  # no -0
