"""A folder in; the headers of the CT slices of one DICOM series in it, checked, out.

Files need no extension. What is no CT slice of the patient (reports, localizers,
secondary captures, other modalities) is passed over, and named where nothing is left.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from attunet_jax.errors import BadData, one_line
from attunet_jax.volume.dicom_files import dicom_files

_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
]
# SOP classes "Secondary Capture Image Storage" and its multi-frame kin.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class SliceHeader:
    """One slice; lengths in mm, directions and position in DICOM's LPS+ axes.

    `orientation` (2, 3): in which direction the column index grows, then the row
    index. `spacing_mm`: between rows, between columns.
    """

    path: Path
    series: str
    description: str
    rows: int
    columns: int
    bits: int
    spacing_mm: tuple[float, float]
    orientation: np.ndarray
    position: np.ndarray
    slope: float
    intercept: float
    syntax: UID


def series_headers(folder: Path, series: str | None) -> list[SliceHeader]:
    """The slices of the one series in `folder`, or of the one asked for by its UID.

    In the order of file names. Raises `BadData` naming the file, or the series where
    there are several.
    """
    found: dict[str, list[SliceHeader]] = {}
    passed_over: Counter[str] = Counter()
    for path in dicom_files(folder):
        dataset = read_dataset(path, headers_only=True)
        with dicom_errors(path):
            reason = _no_ct_slice(dataset)
        if reason:
            passed_over[reason] += 1
            continue
        uid = str(dataset.get("SeriesInstanceUID") or "")
        if series is None or uid == series:
            header = _header(path, uid, dataset)
        else:  # of another series, which may be damaged: only named
            header = None
        found.setdefault(uid, []).extend([header] if header else [])
    if series is not None:
        if series not in found:
            raise BadData(f"{folder}: no CT series {series} in it{_listed(found)}")
        return found[series]
    if not found:
        others = ", ".join(f"{n} {what}" for what, n in passed_over.items())
        raise BadData(
            f"{folder}: no slices of a CT series in it"
            + (f", only {others}" if others else "; name the folder with the files")
        )
    if len(found) > 1:
        raise BadData(
            f"{folder}: {len(found)} series in one folder{_listed(found)}; ask for one "
            "by its UID, or move them apart"
        )
    (headers,) = found.values()
    return headers


def read_dataset(path: Path, *, headers_only: bool) -> Any:
    """A file's tags: those of `_TAGS`, or all with the pixels, still as stored."""
    with dicom_errors(path):
        dataset = pydicom.dcmread(
            path,
            force=True,
            stop_before_pixels=headers_only,
            specific_tags=list(_TAGS) if headers_only else None,
        )
        if "TransferSyntaxUID" not in dataset.file_meta:  # as before DICOM had files
            implicit, little = dataset.original_encoding
            if not little:
                plain = ExplicitVRBigEndian
            else:
                plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = plain
        return dataset


@contextmanager
def dicom_errors(path: Path) -> Iterator[None]:
    """Whatever pydicom raises on a damaged file becomes one line of `BadData`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values that are not used here
            yield
    except BadData:
        raise
    except OSError as error:
        raise BadData(
            f"{path}: cannot be read ({error.strerror or one_line(error)}); check its "
            "permissions, or copy it again"
        ) from error
    except MemoryError as error:
        raise BadData(f"{path}: too large for the memory of this machine") from error
    except Exception as error:  # struct, zlib, lookups: a damaged file raises anything
        raise BadData(
            f"{path}: damaged DICOM file ({one_line(error)}); copy it again"
        ) from error


def _no_ct_slice(dataset: Any) -> str | None:
    """What a file is, in words, where it is no slice of a CT scan."""
    kind = str(dataset.get("SOPClassUID") or "")
    modality = str(dataset.get("Modality") or "")
    image_type = dataset.get("ImageType") or []
    words = [image_type] if isinstance(image_type, str) else list(image_type)
    if kind.startswith(_SECONDARY_CAPTURE):
        return "secondary captures"
    if "LOCALIZER" in words:
        return "localizers"
    if modality and modality != "CT":
        return f"files of modality {modality}"
    if "Rows" not in dataset:
        if not kind:
            raise ValueError("no picture and no kind of object in it")
        return "files without a picture"
    return None


def _header(path: Path, series: str, dataset: Any) -> SliceHeader:
    frames = _number(path, dataset, "NumberOfFrames", int, 1)
    if frames != 1:
        raise BadData(
            f"{path}: {frames} frames in one file (enhanced DICOM); convert the series "
            "to NIfTI, with dcm2niix for one"
        )
    if _number(path, dataset, "SamplesPerPixel", int, 1) != 1:
        raise BadData(f"{path}: a colour picture, not HU; remove it from the series")
    slope = _number(path, dataset, "RescaleSlope", float)
    if slope == 0:
        raise BadData(f"{path}: RescaleSlope is 0; export the series again")
    between_rows, between_columns = _numbers(path, dataset, "PixelSpacing", 2)
    orientation = np.array(_numbers(path, dataset, "ImageOrientationPatient", 6))
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    if not syntax.is_transfer_syntax:
        raise BadData(
            f"{path}: its pixels are coded as {syntax or 'nothing'}, which is none of "
            "DICOM's ways; export the series again"
        )
    return SliceHeader(
        path=path,
        series=series,
        description=str(dataset.get("SeriesDescription") or ""),
        rows=_number(path, dataset, "Rows", int),
        columns=_number(path, dataset, "Columns", int),
        bits=_number(path, dataset, "BitsAllocated", int),
        spacing_mm=(between_rows, between_columns),
        orientation=orientation.reshape(2, 3),
        position=np.array(_numbers(path, dataset, "ImagePositionPatient", 3)),
        slope=slope,
        intercept=_number(path, dataset, "RescaleIntercept", float),
        syntax=syntax,
    )


def _number(
    path: Path,
    dataset: Any,
    name: str,
    kind: Callable[[Any], Any],
    default: Any = None,
) -> Any:
    value = dataset.get(name)
    if value is None and default is not None:
        return default
    return kind(_numbers(path, dataset, name, 1)[0])


def _numbers(path: Path, dataset: Any, name: str, count: int) -> tuple[float, ...]:
    """The values of a tag. Raises `BadData` where it is missing or not so many."""
    with dicom_errors(path):
        value = dataset.get(name)
    if value is None or value == "":
        raise BadData(f"{path}: DICOM tag {name} is missing; export the series again")
    values = value if isinstance(value, Sequence) else [value]
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise BadData(
            f"{path}: DICOM tag {name} is {one_line(ValueError(value))}, not {count} "
            "numbers; export the series again"
        )
    return numbers


def _listed(found: dict[str, list[SliceHeader]]) -> str:
    rows = [
        f"{uid or '(no UID)'}"
        + (f" ({len(headers)} slices, {headers[0].description!r})" if headers else "")
        for uid, headers in sorted(found.items())
    ]
    return ": " + ", ".join(rows) if rows else ""
