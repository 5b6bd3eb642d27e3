"""Label maps of 3D Slicer (.seg.nrrd): cut to what is labelled, values beside names.

Slicer numbers the segments of each file in their order, so one organ may have another
value in every case; and it may leave out what is empty around them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from attunet_jax.data.label_names import as_identifier
from attunet_jax.errors import BadData
from attunet_jax.volume import Volume
from attunet_jax.volume.itk import segment_values

ENDING = ".seg.nrrd"
# Of a voxel: corners of the two grids are the same numbers, written as text.
_OFF_GRID_VOX = 1e-2


def names_of_segments(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Returns segment -> label value, as --labels would name them."""
    values = segment_values(path)
    return {as_identifier(name): (value,) for name, value in values.items() if value}


def of_slicer(
    labels: Volume, image: Volume, organs: Mapping[str, tuple[int, ...]]
) -> Volume:
    """Returns `labels` of a .seg.nrrd on the grid of `image`, where it lies in it.

    Raises `BadData` where a segment has the name of an organ and another label value
    than `organs` says.
    """
    for name, value in segment_values(labels.path).items():
        for organ, values in organs.items():
            if as_identifier(name).lower() == organ.lower() and value not in values:
                raise BadData(
                    f"{labels.path}: its segment {name!r} has label value {value}, "
                    f"--labels says {organ}={'+'.join(map(str, values))}; number the "
                    "segments of all cases alike"
                )
    offset = _offset(labels, image)
    if offset is None:
        return labels
    whole = np.zeros(image.voxels.shape, labels.voxels.dtype)
    box = tuple(
        slice(o, o + n) for o, n in zip(offset, labels.voxels.shape, strict=True)
    )
    whole[box] = labels.voxels
    return replace(labels, voxels=whole, affine=image.affine, grid=image.grid)


def _offset(labels: Volume, image: Volume) -> tuple[int, ...] | None:
    """The voxel of `image` at which a smaller grid of its own voxels begins."""
    if labels.voxels.shape == image.voxels.shape:
        return None
    mapping = np.linalg.inv(image.affine) @ labels.affine
    extent = np.array(labels.voxels.shape)
    offset = np.rint(mapping[:3, 3])
    off = np.abs(mapping[:3, :3] - np.eye(3)).max() * extent.max()
    off = max(off, np.abs(mapping[:3, 3] - offset).max())
    inside = (offset >= 0).all() and (offset + extent <= image.voxels.shape).all()
    return (
        tuple(offset.astype(int).tolist()) if off < _OFF_GRID_VOX and inside else None
    )
