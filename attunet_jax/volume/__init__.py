"""A scan and its geometry: read, bring to one orientation and spacing, and back.

Canonical axes are `[D, H, W]` = feet to head, front to back, patient's right to left:
the radiological picture (and DICOM's LPS order).
"""

from attunet_jax.volume.nifti import (
    read_image,
    read_labels,
    write_nifti,
    write_on_grid,
)
from attunet_jax.volume.orientation import (
    Grid,
    Volume,
    canonical,
    from_canonical,
    same_geometry,
)
from attunet_jax.volume.resample import blur, labels_onto_grid, onto_grid, resample

__all__ = [
    "Grid",
    "Volume",
    "blur",
    "canonical",
    "from_canonical",
    "labels_onto_grid",
    "onto_grid",
    "read_image",
    "read_labels",
    "resample",
    "same_geometry",
    "write_nifti",
    "write_on_grid",
]
