"""NIfTI files in, checked volumes out, and back: the only door to nibabel.

Every way in which a file can be wrong is one `BadData` that begins with its path.
"""

import gzip
import logging
import os
import tempfile
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from attunet_jax.errors import BadData, one_line
from attunet_jax.volume.orientation import Grid, Volume, canonical, from_canonical

# Deflate cannot shrink more than about 1032 to 1; a header that claims more is wrong.
_GREATEST_GZIP_RATIO = 1100
# 2 ** 33 voxels are 16 GiB of int16: no CT is near it.
_MOST_VOXELS = 2**33


def read_image(path: str | os.PathLike) -> Volume:
    """A CT in HU. Whole numbers that fit come as int16, all else as float32.

    Raises `BadData` for anything but a readable 3-D scan of finite numbers.
    """
    values, affine = _read(path)
    if not np.issubdtype(values.dtype, np.integer):
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise BadData(
                f"{path}: {bad} voxels are NaN or infinite; mend the file or leave it "
                "out"
            )
    low, high = (float(values.min()), float(values.max()))
    fits = -32768 <= low and high <= 32767
    if np.issubdtype(values.dtype, np.integer):
        values = values.astype(np.int16 if fits else np.float32)
    elif fits and np.array_equal(rounded := np.rint(values), values):
        values = rounded.astype(np.int16)
    else:
        values = values.astype(np.float32)
    return _volume(values, affine, path)


def read_labels(path: str | os.PathLike) -> Volume:
    """A label map: whole numbers from 0 on, in the smallest unsigned type.

    Raises `BadData` for fractions and negative values too.
    """
    values, affine = _read(path)
    if not np.issubdtype(values.dtype, np.integer):
        if not np.isfinite(values).all():
            raise BadData(f"{path}: a label map with NaN or infinite voxels")
        if not np.array_equal(rounded := np.rint(values), values):
            odd = float(values[rounded != values].flat[0])
            raise BadData(
                f"{path}: a label map with fractions ({odd:g}); save it with nearest-"
                "neighbour interpolation and whole numbers"
            )
        values = rounded
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadData(f"{path}: label values {low}..{high}; they must be 0..65535")
    return _volume(values.astype(np.uint8 if high < 256 else np.uint16), affine, path)


def write_nifti(
    path: str | os.PathLike, array: np.ndarray, affine: np.ndarray
) -> None:
    """Writes `array` in file axis order; the file appears whole or not at all."""
    path = Path(path)
    image = nib.Nifti1Image(array, affine)  # pyright: ignore
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(suffix=".nii.part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                if path.name.endswith(".gz"):
                    # Level 1: half the time of the default for some per cent of size.
                    # No name and no time inside: equal content, equal bytes.
                    with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
                        packed.write(image.to_bytes())
                else:
                    file.write(image.to_bytes())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def write_on_grid(path: str | os.PathLike, labels: np.ndarray, grid: Grid) -> None:
    """A label map `[D, H, W]` on the canonical view of `grid`, as that scan's file."""
    write_nifti(path, from_canonical(labels.astype(np.uint8), grid), grid.affine)


def _read(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """The stored array (scaled where the header says so) and affine, both checked."""
    path = Path(path)
    if not path.is_file():
        raise BadData(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nib.load(path)  # pyright: ignore
            if not isinstance(image, nib.Nifti1Pair | nib.Nifti2Pair):  # pyright: ignore
                raise BadData(f"{path}: not a NIfTI file; convert it to .nii.gz")
            _check_header(path, image)
            affine = _affine(path, image)
            values = _values(image)
    except BadData:
        raise
    except PermissionError:
        raise BadData(f"{path}: may not be read; change its permissions") from None
    except (ImageFileError, HeaderDataError) as error:
        raise BadData(f"{path}: not a NIfTI file ({one_line(error)[:120]})") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadData(
            f"{path}: damaged or cut short ({one_line(error)[:120]}); copy it again"
        ) from None
    except (OSError, ValueError, MemoryError, OverflowError, TypeError) as error:
        raise BadData(
            f"{path}: cannot be read ({one_line(error)[:120]}); it may be cut short"
        ) from None
    return values, affine


def _check_header(path: Path, image) -> None:
    shape = tuple(int(n) for n in image.header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise BadData(
            f"{path}: {len(shape)}-D of shape {list(shape)}, not one 3-D scan; split "
            "it into volumes"
        )
    dtype = image.get_data_dtype()
    if dtype.fields or dtype.kind not in "iufb":
        raise BadData(f"{path}: voxels of type {dtype}, not single numbers")
    if min(shape) < 1 or np.prod([float(n) for n in shape]) > _MOST_VOXELS:
        raise BadData(f"{path}: its header claims an impossible shape {list(shape)}")
    claimed = float(np.prod([float(n) for n in shape])) * dtype.itemsize
    data_file = Path(image.file_map["image"].filename or path)
    there = data_file.stat().st_size
    limit = there * (_GREATEST_GZIP_RATIO if data_file.suffix == ".gz" else 1)
    if claimed > limit:
        raise BadData(
            f"{path}: cut short, or its header is wrong: it claims {claimed:.3g} bytes "
            f"of voxels, the file has {there}"
        )


def _affine(path: Path, image) -> np.ndarray:
    header = image.header
    zooms = np.asarray(header["pixdim"][1:4], float)
    affine = np.asarray(image.affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadData(
            f"{path}: its affine is {'singular' if affine.any() else 'all zero'}, so "
            "the scan has no geometry; write it again with one"
        )
    unset = not int(header["sform_code"]) and not int(header["qform_code"])
    if unset and not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise BadData(f"{path}: spacing {zooms.tolist()} mm in its header, must be > 0")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > 100 or spacing.min() < 0.01:
        raise BadData(
            f"{path}: a spacing of {np.round(spacing, 4).tolist()} mm is no CT's; are "
            "the units mm?"
        )
    return affine


def _values(image) -> np.ndarray:
    stored = np.asanyarray(image.dataobj.get_unscaled())
    slope, inter = image.dataobj.slope, image.dataobj.inter
    stored = stored.reshape(stored.shape[:3])
    if (slope, inter) != (1, 0):
        return stored * np.float64(slope) + np.float64(inter)
    return stored


def _volume(values: np.ndarray, affine: np.ndarray, path: str | os.PathLike) -> Volume:
    moved, moved_affine = canonical(values, affine)
    d, h, w = values.shape
    return Volume(
        voxels=np.ascontiguousarray(moved),
        affine=moved_affine,
        grid=Grid((d, h, w), affine),
        path=str(path),
    )
