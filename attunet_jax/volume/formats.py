"""Reads and writes files of scans and label maps, each format by its own module.

What stands here has one form for all: NIfTI is read by `nifti`, NRRD and MetaImage by
`itk`, and a label map is written in the format of its name.
"""

from pathlib import Path

import numpy as np

from attunet_jax.volume import itk, nifti
from attunet_jax.volume.geometry import from_canonical
from attunet_jax.volume.volume import Grid, Volume


def read_image(path: str | Path) -> Volume:
    """Reads the scan at `path` in HU, `[D, H, W]`, int16 or float32.

    Raises `BadData` where the file is no such scan.
    """
    return itk.read_image(path) if itk.is_itk(path) else nifti.read_image(path)


def read_labels(path: str | Path) -> Volume:
    """Reads the label map at `path`, `[D, H, W]`, uint8 or uint16 (labels above 255).

    Labels are whole numbers from 0 to 65535 in any on-disk type; others raise
    `BadData`.
    """
    return itk.read_labels(path) if itk.is_itk(path) else nifti.read_labels(path)


def read_grid(path: str | Path) -> tuple[Volume, bool]:
    """Reads the scan at `path` without its voxels, and whether its type fits in int16.

    `voxels` is one zero broadcast to the scan's shape, which takes no memory. Raises
    `BadData` where the header is damaged.
    """
    return itk.read_grid(path) if itk.is_itk(path) else nifti.read_grid(path)


def write_on_grid(path: str | Path, labels_dhw: np.ndarray, grid: Grid) -> None:
    """Writes `labels_dhw`, on the canonical view of `grid`, in the grid's own layout.

    Axis order, shape and affine are the scan's, the type is uint8. Raises as
    `nifti.write_on_grid` does.
    """
    if not itk.is_itk(path):
        nifti.write_on_grid(path, labels_dhw, grid)
        return
    labels = labels_dhw.astype(np.uint8, copy=False)
    if labels is not labels_dhw and not np.array_equal(labels, labels_dhw):
        raise ValueError(f"{path}: labels must be whole numbers from 0 to 255")
    itk.write_itk(path, from_canonical(labels, grid), grid.affine)
