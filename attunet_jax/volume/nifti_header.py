"""Parses and checks NIfTI headers: shape, type, scaling and placement.

nibabel reads the fields. Its own checks are not used: they repair silently (a spacing
of zero becomes 1 mm) and report through a logger.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from attunet_jax.errors import BadData
from attunet_jax.volume.placement import BadPlacement, Placement
from attunet_jax.volume.volume import MAX_VOXELS, Grid

HEADER_BYTES = 540  # NIfTI-2; NIfTI-1 has 348


@dataclass(frozen=True)
class Header:
    """What reading the voxels needs; `offset` is in bytes from the file's start."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    grid: Grid

    @property
    def data_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize


def parse_header(path: Path, head: bytes) -> Header:
    """Parses `head`, the first `HEADER_BYTES` bytes of the file (or all, if fewer).

    The affine is the sform if it has a code, else the qform, else the spacing alone
    with x from right to left, as in nibabel, in mm. Raises `BadData`.
    """
    fields = _fields(path, head)
    shape = _shape(path, [int(n) for n in np.atleast_1d(fields["dim"])])
    offset = float(fields["vox_offset"])
    if not fields.sizeof_hdr <= offset < 2**31 or offset % 1:
        raise BadData(
            f"{path}: damaged header: voxels cannot begin at byte {offset:g}; "
            "convert or download the file again"
        )
    try:
        slope, inter = fields.get_slope_inter()
    except HeaderDataError as error:
        raise BadData(
            f"{path}: scl_inter is not a number; convert the file again"
        ) from error
    placement = Placement.of_header(fields)
    try:
        affine = placement.affine(shape)
    except BadPlacement as error:
        raise BadData(f"{path}: {error}") from error
    return Header(
        shape=shape,
        dtype=_dtype(path, fields),
        offset=int(offset),
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
        grid=Grid(shape, affine, placement),
    )


def _fields(path: Path, head: bytes) -> Nifti1Header:
    for endianness in ("<", ">"):
        size = int(np.frombuffer(head[:4].ljust(4), f"{endianness}i4")[0])
        if size == 348 and len(head) >= 348:
            if head[344:348] == b"n+1\0":
                return Nifti1Header(head[:348], endianness, check=False)
            if head[344:348] == b"ni1\0":
                raise BadData(
                    f"{path}: header of a .hdr/.img pair; convert it to one .nii file"
                )
        if size == 540 and len(head) >= 540 and head[4:8] == b"n+2\0":
            return Nifti2Header(head[:540], endianness, check=False)
    raise BadData(
        f"{path}: not a NIfTI file (no NIfTI header inside); export the scan as NIfTI"
    )


def _shape(path: Path, dim: list[int]) -> tuple[int, int, int]:
    count = dim[0]
    sizes = dim[1 : count + 1]
    if not 1 <= count <= 7 or min(sizes) < 1:
        raise BadData(f"{path}: damaged header: dimensions {dim}; convert it again")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    by = " x ".join(map(str, sizes))
    if len(sizes) > 3:
        raise BadData(
            f"{path}: {len(sizes)}-D image ({by}); give one 3-D volume a file"
        )
    if len(sizes) < 3:
        raise BadData(
            f"{path}: {len(sizes)}-D image ({by}); stack the slices to one 3-D volume"
        )
    x, y, z = sizes
    if x * y * z > MAX_VOXELS:
        raise BadData(f"{path}: header claims {by} voxels, too many to be a scan")
    return x, y, z


def _dtype(path: Path, fields: Nifti1Header) -> np.dtype:
    code = int(fields["datatype"])
    try:
        dtype, name = fields.get_data_dtype(), data_type_codes.label[code]
    except (HeaderDataError, KeyError):
        dtype, name = None, f"code {code}, which is none of NIfTI's"
    if dtype is None or dtype.kind not in "iuf":
        raise BadData(
            f"{path}: voxels of type {name}; one whole or real number a voxel is needed"
        )
    return dtype
