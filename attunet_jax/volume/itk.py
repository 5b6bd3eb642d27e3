"""NRRD and MetaImage files (.nrrd, .seg.nrrd, .mha) as `Volume`s, through SimpleITK.

This is the one door to SimpleITK, an optional package (extra "itk"). ITK's world axes
are LPS, as DICOM's; those of a `Grid` are RAS. A file that keeps its voxels in another
file is refused: paths that a file names are not followed.
"""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadData, one_line
from attunet_jax.files import replacing
from attunet_jax.volume.endings import ITK_ENDINGS, SEGMENTATION, split_ending
from attunet_jax.volume.geometry import canonical_grid, from_canonical
from attunet_jax.volume.volume import (
    MAX_VOXELS,
    Grid,
    Stored,
    Volume,
    fits_int16,
    sizes_text,
)

_INSTALL = "pip install SimpleITK (the extra [itk])"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES = 2**20  # a text header with many segments is far shorter
# What a byte of the file can become; bzip2 packs empty space best.
_MAX_RATIO = {"raw": 1, "gzip": 1100, "gz": 1100}
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100


def is_itk(path: str | Path) -> bool:
    """Returns whether a file is read here, by its name."""
    return split_ending(Path(path).name, ITK_ENDINGS)[1] is not None


def read_image(path: str | Path) -> Volume:
    """Reads the scan at `path` in HU, `[D, H, W]`.

    The type is int16 if every value is a whole number in its range, else float32.
    Raises `BadData` if the file is no such scan, or SimpleITK is not installed.
    """
    path = Path(path)
    values, grid = _read(path)
    if values.dtype.kind == "f" and (bad := values.size - np.isfinite(values).sum()):
        raise BadData(
            f"{path}: {bad} voxels are NaN or infinite; replace them (air is -1024 HU)"
        )
    dtype = np.int16 if fits_int16(values) else np.float32
    stored = Stored.of(values, values.dtype.name)
    return replace(_volume(path, values, grid, dtype), stored=stored)


def read_labels(path: str | Path) -> Volume:
    """Reads the label map at `path`, `[D, H, W]`, uint8 or uint16 (labels above 255).

    Raises `BadData` where a label is no whole number from 0 to 65535, or where segments
    of 3D Slicer overlap.
    """
    path = Path(path)
    values, grid = _read(path)
    if values.dtype.kind == "f":
        whole = np.rint(values)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(values - whole) <= 1e-3)  # NaN too
        if wrong.any():
            raise BadData(
                f"{path}: label {values[wrong][0]:g} is not a whole number "
                f"({wrong.sum()} such voxels); is this the label map?"
            )
        values = whole
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise BadData(
            f"{path}: label {low if low < 0 else high:g} is outside 0 to 65535; "
            "is this the label map?"
        )
    return _volume(path, values, grid, np.uint8 if high <= 255 else np.uint16)


def read_grid(path: str | Path) -> tuple[Volume, bool]:
    """Reads the scan at `path` without its voxels, and whether its type fits in int16.

    `voxels` is one zero broadcast to the scan's shape, which takes no memory. Raises
    `BadData` where the header is damaged.
    """
    path = Path(path)
    reader = _opened(path)
    grid = _grid(path, reader)
    shape, affine = canonical_grid(grid)
    voxels = np.broadcast_to(np.int16(0), shape)
    fits = _type(reader).startswith(("8-bit", "16-bit signed"))
    return Volume(voxels, affine, grid, str(path)), fits


def segment_values(path: str | Path) -> dict[str, int]:
    """Returns the label value of each segment that 3D Slicer names in a file."""
    reader = _opened(Path(path))
    keys = reader.GetMetaDataKeys()
    found = {}
    for key in keys:
        number = key.removeprefix("Segment").removesuffix("_Name")
        value = f"Segment{number}_LabelValue"
        if key == f"Segment{number}_Name" and value in keys:
            text = reader.GetMetaData(value).strip()
            if text.isascii() and text.isdigit():
                found[reader.GetMetaData(key).strip()] = int(text)
    return found


def write_itk(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes `array` (file order) with `affine` (index to world mm, RAS+), packed.

    The file appears whole or not at all. Raises `BadData` where it cannot be written.
    """
    path = Path(path)
    sitk = _sitk(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    ending = (split_ending(path.name, ITK_ENDINGS)[1] or "").lower()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # ITK goes by the ending.
        with replacing(path, ending=f"part{ending}") as temporary:
            sitk.WriteImage(image, str(temporary), useCompression=True)
    except (OSError, RuntimeError) as error:
        raise BadData(
            f"{path.parent}: cannot write {path.name} there "
            f"({getattr(error, 'strerror', None) or _last_words(error)}); choose "
            "another folder"
        ) from error


def _read(path: Path) -> tuple[np.ndarray, Grid]:
    """Returns voxels as stored, in the file's order of axes, and their grid."""
    reader = _opened(path)
    grid = _grid(path, reader)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise BadData(
            f"{path}: its voxels cannot be read ({_last_words(error)}): truncated or "
            "damaged; copy or export it again"
        ) from error
    except MemoryError as error:
        raise BadData(f"{path}: too large for the memory of this machine") from error
    array = _sitk(path).GetArrayFromImage(image)
    return array.reshape(grid.shape[::-1]).T, grid


def _volume(path: Path, values: np.ndarray, grid: Grid, dtype: Any) -> Volume:
    shape, affine = canonical_grid(grid)
    voxels = np.empty(shape, dtype)
    target = from_canonical(voxels, grid)
    for index in range(grid.shape[2]):
        target[..., index] = values[..., index]
    return Volume(voxels, affine, grid, str(path))


def _opened(path: Path) -> Any:
    """Returns a reader that has read and checked the header."""
    sitk = _sitk(path)
    _check_header(path)
    reader = sitk.ImageFileReader()
    nrrd = path.name.lower().endswith(".nrrd")
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise BadData(
            f"{path}: its header cannot be read ({_last_words(error)}); export it again"
        ) from error
    if (count := reader.GetNumberOfComponents()) != 1:
        if path.name.lower().endswith(SEGMENTATION):
            raise BadData(
                f"{path}: its segments overlap ({count} layers), but a voxel has one "
                "label here; export them without overlap"
            )
        raise BadData(f"{path}: {count} numbers a voxel, not one HU or label")
    if not _type(reader)[:1].isdigit():
        raise BadData(f"{path}: voxels of type {_type(reader)}, not HU or labels")
    return reader


def _grid(path: Path, reader: Any) -> Grid:
    sizes = list(reader.GetSize())
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    by = sizes_text(sizes)
    if len(sizes) != 3:
        raise BadData(
            f"{path}: {len(sizes)}-D image ({by}); give one 3-D volume a file"
        )
    x, y, z = sizes
    rank = reader.GetDimension()
    spacing = np.array(reader.GetSpacing())[:3]
    direction = np.array(reader.GetDirection()).reshape(rank, rank)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = reader.GetOrigin()[:3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(direction)) < 1e-3:
        raise BadData(f"{path}: its axes are no grid; set spacing and direction again")
    if not ((spacing >= _MIN_SPACING_MM) & (spacing <= _MAX_SPACING_MM)).all():
        raise BadData(
            f"{path}: spacing of {sizes_text(spacing)} mm is impossible; set it in the "
            "header"
        )
    claimed = x * y * z * _type_bytes(reader)
    ratio = _MAX_RATIO.get(_check_header(path))
    if ratio and claimed > path.stat().st_size * ratio:
        raise BadData(
            f"{path}: truncated: the header says {claimed} bytes of voxels, more than "
            "the file can hold; copy or download it again"
        )
    return Grid((x, y, z), _LPS_TO_RAS @ affine)


def _check_header(path: Path) -> str:
    """Returns how the voxels are packed. Raises `BadData` for what is no such file.

    The header is text: lines of "field: value" to an empty line in NRRD, of "field =
    value" to ElementDataFile in MetaImage. Sizes are checked before ITK sees them: with
    absurd ones it ends the process.
    """
    nrrd = path.name.lower().endswith(".nrrd")
    kind = "NRRD" if nrrd else "MetaImage"
    fields = _fields(path, nrrd)
    if fields is None:
        raise BadData(f"{path}: content is not {kind}, or cut off; get the file again")
    if (
        "datafile" in fields
        or fields.get("elementdatafile", "LOCAL").upper() != "LOCAL"
    ):
        raise BadData(
            f"{path}: its voxels are in another file; save both as one .nrrd or .mha"
        )
    rank, sizes = ("dimension", "sizes") if nrrd else ("ndims", "dimsize")
    numbers = fields.get(sizes, "").split()
    whole = all(n.isascii() and n.isdigit() and 0 < int(n) < 2**31 for n in numbers)
    if not whole or fields.get(rank) not in ("1", "2", "3", "4"):
        raise BadData(f"{path}: damaged header: {rank} or {sizes}; export it again")
    if len(numbers) != int(fields[rank]):
        raise BadData(f"{path}: damaged header: {rank} or {sizes}; export it again")
    if math.prod(map(int, numbers)) > MAX_VOXELS:
        raise BadData(f"{path}: header claims {' x '.join(numbers)} voxels: no scan")
    if nrrd:
        return fields.get("encoding", "").lower()
    return "gzip" if fields.get("compresseddata", "").lower() == "true" else "raw"


def _fields(path: Path, nrrd: bool) -> dict[str, str] | None:
    """The header's fields, their names in small letters; None where it has no end."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise BadData(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise BadData(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if nrrd and not head.startswith(b"NRRD"):
        return None
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        name, found, value = line.decode("latin-1").partition(":" if nrrd else "=")
        if nrrd and not line.strip():
            return fields
        if found:
            fields[name.strip().lower().replace(" ", "")] = value.strip()
        if not nrrd and name.strip().lower() == "elementdatafile":
            return fields
    return None


def _type(reader: Any) -> str:
    return _sitk(Path()).GetPixelIDValueAsString(reader.GetPixelID())


def _type_bytes(reader: Any) -> int:
    """Bytes of a number, from ITK's name of its type: "16-bit signed integer"."""
    return int(_type(reader).partition("-bit")[0]) // 8


def _last_words(error: BaseException) -> str:
    """The reason in ITK's message, which begins with the place in its source."""
    return one_line(error).rpartition("ERROR: ")[2].rpartition("): ")[2][:200]


def _sitk(path: Path) -> Any:
    """Returns the package. Raises `BadData` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
            import SimpleITK as sitk
    except ImportError:
        raise BadData(
            f"{path}: {path.suffix} files need SimpleITK: {_INSTALL}, or convert the "
            "file to NIfTI"
        ) from None
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk
