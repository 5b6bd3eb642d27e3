"""Reads, resamples and writes scans and label maps as canonical `Volume`s."""

from attunet_jax.volume import checks
from attunet_jax.volume.dicom.contents import contents as dicom_contents
from attunet_jax.volume.dicom.patient import patient_id
from attunet_jax.volume.dicom.read import max_voxels
from attunet_jax.volume.endings import (
    ENDINGS,
    ITK_ENDINGS,
    SCAN_ENDINGS,
    SEGMENTATION,
    split_ending,
)
from attunet_jax.volume.formats import (
    read_grid,
    read_image,
    read_labels,
    write_on_grid,
)
from attunet_jax.volume.geometry import (
    axis_codes,
    canonical,
    canonical_grid,
    from_canonical,
    max_corner_distance_mm,
    same_geometry,
)
from attunet_jax.volume.nifti import write_nifti, write_values_on_grid
from attunet_jax.volume.placement import Placement, corner_distance_mm
from attunet_jax.volume.resample import (
    blur,
    labels_onto_grid,
    onto_grid,
    resample,
    resampled_shape,
)
from attunet_jax.volume.same_grid import (
    GEOMETRY_TOLERANCE_MM,
    align_by_index,
    different_grids,
    labels_on_grid_of,
    on_image,
)
from attunet_jax.volume.scan import read_scan
from attunet_jax.volume.volume import Grid, Volume, as_ct

__all__ = [
    "ENDINGS",
    "GEOMETRY_TOLERANCE_MM",
    "Grid",
    "ITK_ENDINGS",
    "Placement",
    "SCAN_ENDINGS",
    "SEGMENTATION",
    "Volume",
    "align_by_index",
    "as_ct",
    "axis_codes",
    "blur",
    "canonical",
    "canonical_grid",
    "checks",
    "corner_distance_mm",
    "dicom_contents",
    "different_grids",
    "from_canonical",
    "labels_on_grid_of",
    "labels_onto_grid",
    "max_corner_distance_mm",
    "max_voxels",
    "on_image",
    "onto_grid",
    "patient_id",
    "read_grid",
    "read_image",
    "read_labels",
    "read_scan",
    "resample",
    "resampled_shape",
    "same_geometry",
    "split_ending",
    "write_nifti",
    "write_on_grid",
    "write_values_on_grid",
]
