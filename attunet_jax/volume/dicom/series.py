"""Reads and checks the header of one DICOM file: a slice, or what it is instead."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from attunet_jax.errors import BadData, one_line

# What tells apart the scans that share a series: see phases.py.
MARKS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
    "ImageType",
    "StackID",
    "SeriesTime",
    "InstanceNumber",
)
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
    "SOPInstanceUID",
    "SeriesNumber",
    "PhotometricInterpretation",
    *MARKS,
]
# SOP classes of CT and of secondary captures; related classes have the same prefix.
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Words of ImageType of pictures that are made of a screen or of numbers.
_CAPTURES = re.compile(r"SCREEN.*|.* ?CAPTURE|(DOSE )?REPORT|DOSE( INFO| PAGE| SHEET)?")
PLACELESS = "pictures without a position (screen captures or dose pages)"
_OTHER_MODALITIES = {
    "SR": "structured reports",
    "PR": "presentation states",
    "KO": "notes of key images",
    "DOC": "documents",
    "SEG": "segmentations (SEG)",
    "RTSTRUCT": "segmentations (RTSTRUCT)",
}


@dataclass(frozen=True)
class SliceHeader:
    """One slice; lengths are in mm, directions and position in DICOM's LPS+ axes.

    `orientation` (2, 3) has the directions in which the column index and the row index
    grow, `spacing_mm` the distances between rows and between columns.
    """

    path: Path
    rows: int
    columns: int
    bits: int
    spacing_mm: tuple[float, float]
    orientation: np.ndarray
    position: np.ndarray
    slope: float
    intercept: float
    syntax: UID
    instance: str  # SOPInstanceUID
    marks: Mapping[str, str]  # values of `MARKS` that the file has


def read_dataset(path: Path, *, headers_only: bool) -> pydicom.FileDataset:
    """Reads a file's tags: those of `_TAGS`, or all with the pixels as stored."""
    with dicom_errors(path):
        dataset = pydicom.dcmread(
            path,
            force=True,
            stop_before_pixels=headers_only,
            specific_tags=list(_TAGS) if headers_only else None,
        )
        if (
            "TransferSyntaxUID" not in dataset.file_meta
        ):  # from before DICOM defined files
            _, little = dataset.original_encoding
            plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = plain
        return dataset


@contextmanager
def dicom_errors(path: Path) -> Iterator[None]:
    """Turns whatever pydicom raises on a damaged file into one line of `BadData`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tags that are not used here
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
    except Exception as error:  # a damaged file raises anything: struct, zlib, lookups
        raise BadData(
            f"{path}: damaged DICOM file ({one_line(error)}); copy it again"
        ) from error


def no_ct_slice(path: Path, dataset: pydicom.FileDataset) -> str | None:
    """Says what a file is where it is no slice of a CT scan, else None."""
    with dicom_errors(path):
        return _no_ct_slice(path, dataset)


def _no_ct_slice(path: Path, dataset: pydicom.FileDataset) -> str | None:
    kind = str(dataset.get("SOPClassUID") or "")
    modality = str(dataset.get("Modality") or "")
    image_type = dataset.get("ImageType") or []
    values = [image_type] if isinstance(image_type, str) else list(image_type)
    words = [re.sub(r"[_ -]+", " ", str(value)).upper() for value in values]
    if kind.startswith(_SECONDARY_CAPTURE):
        return "secondary captures"
    if any(word in {"LOCALIZER", "SCOUT", "TOPOGRAM"} for word in words):
        return "localizers"
    if any(map(_CAPTURES.fullmatch, words)):
        return "screen captures"
    if modality and modality != "CT":
        return _OTHER_MODALITIES.get(modality, f"files of modality {modality}")
    if "Rows" not in dataset:
        if kind and not kind.startswith(_CT_IMAGE):
            return "files without a picture"
        raise BadData(
            f"{path}: DICOM tag Rows is missing: truncated, or no DICOM picture; copy "
            "it again, or remove it"
        )
    placed = "ImagePositionPatient" in dataset or "ImageOrientationPatient" in dataset
    made = words[:1] == ["DERIVED"] or words[1:2] == ["SECONDARY"]
    coded = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if not placed and (made or not coded.startswith("MONOCHROME")):
        return PLACELESS
    return None


def header_of(path: Path, dataset: pydicom.FileDataset) -> SliceHeader:
    """Returns the header of a slice. Raises `BadData` where a tag is unusable."""
    with dicom_errors(path):
        return _header(path, dataset)


def _header(path: Path, dataset: pydicom.FileDataset) -> SliceHeader:
    frames = _number(path, dataset, "NumberOfFrames", int, 1)
    if frames != 1:
        raise BadData(
            f"{path}: {frames} frames in one file (enhanced DICOM); convert the series "
            "to NIfTI, with dcm2niix for example"
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
        rows=_number(path, dataset, "Rows", int),
        columns=_number(path, dataset, "Columns", int),
        bits=_number(path, dataset, "BitsAllocated", int),
        spacing_mm=(between_rows, between_columns),
        orientation=orientation.reshape(2, 3),
        position=np.array(_numbers(path, dataset, "ImagePositionPatient", 3)),
        slope=slope,
        intercept=_number(path, dataset, "RescaleIntercept", float),
        syntax=syntax,
        instance=str(dataset.get("SOPInstanceUID") or path.name),
        marks={
            name: _mark(value)
            for name in MARKS
            if (value := dataset.get(name)) not in (None, "")
        },
    )


def _mark(value: Any) -> str:
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _number(
    path: Path,
    dataset: pydicom.FileDataset,
    name: str,
    kind: Callable[[Any], Any],
    default: Any = None,
) -> Any:
    value = dataset.get(name)
    if value is None and default is not None:
        return default
    return kind(_numbers(path, dataset, name, 1)[0])


def _numbers(
    path: Path, dataset: pydicom.FileDataset, name: str, count: int
) -> tuple[float, ...]:
    """Returns the `count` numbers of a tag. Raises `BadData` where it has others."""
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
