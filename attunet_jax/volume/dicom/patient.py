"""Reads whose scan a DICOM series is."""

from collections.abc import Collection
from pathlib import Path

import pydicom

from attunet_jax.volume.dicom.files import dicom_files
from attunet_jax.volume.dicom.series import dicom_errors


def patient_id(folder: Path, one_of: Collection[str] = ()) -> str:
    """Returns the PatientID of the series in `folder`, "" where there is none.

    Of several series, that of one whose UID is in `one_of`. Raises `BadData` where a
    file cannot be read.
    """
    first = ""
    for path in dicom_files(folder):
        with dicom_errors(path):
            tags = pydicom.dcmread(
                path,
                force=True,
                stop_before_pixels=True,
                specific_tags=["PatientID", "SeriesInstanceUID"],
            )
            found = str(tags.get("PatientID") or "").strip()
            uid = str(tags.get("SeriesInstanceUID") or "")
        if found and (not one_of or uid in one_of):
            return found
        first = first or found
    return first
