"""Decides whether a label map lies on the grid of a scan or of another label map."""

import numpy as np

from attunet_jax.volume.geometry import canonical, from_canonical, same_geometry
from attunet_jax.volume.placement import corner_distance_mm
from attunet_jax.volume.volume import Volume

# Image and label map written by different programs differ by rounding, not by this.
GEOMETRY_TOLERANCE_MM = 0.1


def different_grids(image: Volume, labels: Volume) -> str | None:
    """Says so where voxels of equal index do not lie at the same place."""
    difference = same_geometry(image, labels, GEOMETRY_TOLERANCE_MM)
    if difference is None:
        return None
    name = image.path.rpartition("/")[2]
    return (
        f"{labels.path}: not on the grid of {name}: {difference}; "
        "export both from the same scan"
    )


def on_image(labels: Volume, image: Volume) -> Volume:
    """Returns `labels`, moved index by index where ITK places them on the image.

    A label map drawn in 3D Slicer or ITK-SNAP has the header that ITK makes of the
    scan's, which is another than nibabel's where qform, sform and pixdim differ.
    """
    if labels.grid.shape != image.grid.shape or not different_grids(image, labels):
        return labels
    placements = [volume.grid.placement for volume in (image, labels)]
    affines = [placement and placement.itk_affine() for placement in placements]
    if placements[0] and not placements[1]:
        affines[1] = labels.grid.affine  # of a file of ITK's own formats
    if affines[0] is None or affines[1] is None:
        return labels
    apart_mm = corner_distance_mm(image.grid.shape, affines[0], affines[1])
    if apart_mm > GEOMETRY_TOLERANCE_MM:
        return labels
    return align_by_index(image, labels)


def align_by_index(image: Volume, labels: Volume) -> Volume:
    """Returns `labels` as they would lie with the image's affine in their header.

    Unchanged where the shapes of the files differ.
    """
    if labels.grid.shape != image.grid.shape:
        return labels
    stored = from_canonical(labels.voxels, labels.grid)
    voxels, affine = canonical(stored, image.grid.affine)
    return Volume(np.ascontiguousarray(voxels), affine, image.grid, labels.path)
