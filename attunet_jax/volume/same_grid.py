"""Decides whether a label map lies on the grid of a scan or of another label map."""

import numpy as np

from attunet_jax.volume.geometry import canonical, from_canonical, same_geometry
from attunet_jax.volume.placement import corner_distance_mm
from attunet_jax.volume.volume import Volume

# Image and label map written by different programs differ by rounding, not by this.
GEOMETRY_TOLERANCE_MM = 0.1
# Of a voxel: grids whose axes run apart by less across a scan are not rotated.
_STRAIGHT_VOX = 0.01


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


def labels_on_grid_of(labels: Volume, target: Volume) -> Volume:
    """Returns `labels` on the grid of `target`, by nearest neighbour.

    Where they do not reach is background. The grids may be rotated against each other.
    """
    mapping = np.linalg.solve(labels.affine, target.affine)  # of indices
    scale = np.diag(mapping)[:3]
    rotation = (mapping[:3, :3] - np.diag(scale)) * target.voxels.shape
    if np.abs(rotation).max() > _STRAIGHT_VOX:
        # Imported late: it takes a good part of a program's start.
        from scipy import ndimage

        voxels = ndimage.affine_transform(
            labels.voxels,
            mapping[:3, :3],
            mapping[:3, 3],  # pyright: ignore[reportArgumentType]
            output_shape=target.voxels.shape,
            order=0,
            mode="grid-constant",
        )
    else:
        positions, inside = [], []
        for axis, (size, n) in enumerate(
            zip(target.voxels.shape, labels.voxels.shape, strict=True)
        ):
            # Rounded, so that noise of a header does not decide between two voxels.
            exact = np.round(mapping[axis, 3] + scale[axis] * np.arange(size), 3)
            index = np.floor(exact + 0.5).astype(np.intp)
            inside.append((index >= 0) & (index < n))
            positions.append(np.clip(index, 0, n - 1))
        voxels = labels.voxels[np.ix_(*positions)]
        for axis, within in enumerate(inside):
            np.moveaxis(voxels, axis, 0)[~within] = 0
    return Volume(voxels, target.affine, target.grid, labels.path)
