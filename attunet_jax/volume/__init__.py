"""A scan and its geometry: files in, canonical `Volume`s out, and back again."""

from attunet_jax.volume.dicom.files import dicom_folders, holds_dicom
from attunet_jax.volume.geometry import (
    apart_mm,
    axis_codes,
    canonical,
    from_canonical,
    same_geometry,
)
from attunet_jax.volume.nifti import (
    read_grid,
    read_image,
    read_labels,
    write_nifti,
    write_on_grid,
)
from attunet_jax.volume.resample import (
    blur,
    labels_onto_grid,
    onto_grid,
    resample,
    resampled_shape,
)
from attunet_jax.volume.scan import most_voxels, read_scan
from attunet_jax.volume.volume import Grid, Volume

__all__ = [
    "Grid",
    "Volume",
    "apart_mm",
    "axis_codes",
    "blur",
    "canonical",
    "dicom_folders",
    "from_canonical",
    "holds_dicom",
    "labels_onto_grid",
    "most_voxels",
    "onto_grid",
    "read_grid",
    "read_image",
    "read_labels",
    "read_scan",
    "resample",
    "resampled_shape",
    "same_geometry",
    "write_nifti",
    "write_on_grid",
]
