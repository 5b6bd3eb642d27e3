"""Unusable DICOM series of the corpus, and other layouts: see bad_inputs.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
from bad_files import empty_folder
from bad_inputs import SHAPE, Place, cut, save, sound, unpacked, unusable
from pydicom.encaps import encapsulate
from pydicom.uid import UID, HTJ2KLossless, RLELossless

# DICOM series; slices are 000.. from the feet.


@unusable
def dicom_text_named_dcm(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "1.dcm").write_text("no slice of a scan " * 20)


@unusable
def dicom_without_positions(at: Place) -> None:
    at.dicom(ImagePositionPatient=None)


@unusable
def dicom_without_slope(at: Place) -> None:
    at.dicom(RescaleSlope=(1, 1, 1, None, *[1] * 6))


@unusable
def dicom_without_spacing(at: Place) -> None:
    at.dicom(PixelSpacing=None)


@unusable
def dicom_two_series(at: Place) -> None:
    files = at.dicom(uid="1.2.3")
    hu, _ = at.sound()
    at.write_series(files[0].parent, hu.T[:6], name="b{}", uid="1.2.4")


@unusable
def dicom_two_phases_of_a_series(at: Place) -> None:
    folder = at.dicom(AcquisitionNumber=1)[0].parent
    hu = at.sound()[0].T + 30
    words = {"origin": (0, 0, 0), "spacing": (2, 2, 2), "AcquisitionNumber": 2}
    at.write_series(folder, hu, name="b{}", **words)


@unusable
def dicom_two_series_below(at: Place) -> None:
    files = at.dicom(uid="1.2.3")
    for number, file in enumerate(files):
        below = file.parent / f"{number % 2}"
        below.mkdir(exist_ok=True)
        file.rename(below / file.name)


@unusable
def dicom_secondary_captures(at: Place) -> None:
    at.dicom(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")


@unusable
def dicom_localizers(at: Place) -> None:
    at.dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


@unusable
def dicom_of_mr(at: Place) -> None:
    at.dicom(Modality="MR")


@unusable
def dicom_of_one_slice(at: Place) -> None:
    for file in at.dicom()[1:]:
        file.unlink()


@unusable
def dicom_slice_missing(at: Place) -> None:
    at.dicom()[4].unlink()


@unusable
def dicom_slice_twice(at: Place) -> None:
    file = at.dicom()[4]
    copy = file.with_name(f"{file.name}_copy")
    data = pydicom.dcmread(file)
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(copy)


@unusable
def dicom_slices_unevenly_spaced(at: Place) -> None:
    at.dicom(
        ImagePositionPatient=tuple(
            [0, 0, 2 * k + 0.6 * max(k - 4, 0)] for k in range(10)
        )
    )


@unusable
def dicom_slices_of_two_sizes(at: Place) -> None:
    at.dicom(Columns=(*[8] * 9, 7))


@unusable
def dicom_tilted_gantry(at: Place) -> None:
    at.dicom(ImagePositionPatient=tuple([0, 0.4 * k, 2 * k] for k in range(10)))


@unusable
def dicom_multi_frame(at: Place) -> None:
    at.dicom(NumberOfFrames=9)


@unusable
def dicom_in_colour(at: Place) -> None:
    at.dicom(SamplesPerPixel=3)


@unusable
def dicom_absurd_size(at: Place) -> None:
    at.dicom(Rows=30000, Columns=30000)


@unusable
def dicom_cut_in_the_header(at: Place) -> None:
    cut(at.dicom(name="{:03}.dcm")[4], 300)


@unusable
def dicom_cut_in_the_pixels(at: Place) -> None:
    file = at.dicom(name="{:03}.dcm")[4]
    cut(file, file.stat().st_size - 9)


def _compressed(file: Path, syntax: str, frame: bytes | None) -> None:
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = encapsulate([frame or data.PixelData])
    data["PixelData"].VR = "OB"
    data.save_as(file)


@unusable
def dicom_of_a_compression_not_decoded(at: Place) -> None:
    for file in at.dicom():
        _compressed(file, HTJ2KLossless, None)


@unusable
def dicom_damaged_jpeg(at: Place) -> None:
    _compressed(at.dicom()[4], "1.2.840.10008.1.2.4.70", b"\xff\xd8" + bytes(60))


@unusable
def dicom_damaged_rle(at: Place) -> None:
    _compressed(at.dicom()[4], RLELossless, b"\x02" + bytes(70))


# Other layouts. Each is made in a folder of the layout that holds a sound case too.


def make_decathlon(folder: Path) -> Path:
    """A task whose dataset.json names scans that are there, outside its folder."""
    task, name = folder / "task", "msd_case_outside_the_folder"
    listed = ("sound", f"../../{name}", str(folder / "msd_case_by_an_absolute_path"))
    for case in listed:
        for half, voxels in zip(("imagesTr", "labelsTr"), sound(case), strict=True):
            save(task / half / f"{case}.nii.gz", voxels)
    (task / "imagesTr").mkdir(exist_ok=True)
    description = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen", "2": "pancreas", "3": "kidney"},
        "training": [
            {"image": f"{case}.nii.gz", "label": f"{case}.nii.gz"} for case in listed
        ],
    }
    (task / "dataset.json").write_text(json.dumps(description))
    return task


def make_totalsegmentator(folder: Path) -> Path:
    """A sound case and each way in which its files can be too many or too few."""
    for name in TOTALSEGMENTATOR:
        case = folder / name
        hu, label = sound(name)
        save(case / "ct.nii.gz", hu)
        masks = {"spleen": 1, "pancreas": 2, "kidney_left": 3, "kidney_right": 3}
        for organ, value in masks.items():
            mask = (label == value).astype(np.uint8)
            save(case / "segmentations" / f"{organ}.nii.gz", mask)

    def place(name: str) -> Path:
        return folder / f"totalsegmentator_{name}"

    masks = place("mask_missing") / "segmentations"
    (masks / "pancreas.nii.gz").unlink()
    masks = place("masks_that_overlap") / "segmentations"
    shutil.copy(masks / "pancreas.nii.gz", masks / "spleen.nii.gz")
    masks = place("mask_twice") / "segmentations"
    shutil.copy(masks / "pancreas.nii.gz", masks / "kept")
    unpacked(masks / "pancreas.nii.gz")
    (masks / "kept").rename(masks / "pancreas.nii.gz")
    masks = place("mask_of_another_shape") / "segmentations"
    save(masks / "pancreas.nii.gz", np.zeros((8, 9, 9), np.uint8))
    case = place("scan_twice")
    shutil.copy(case / "ct.nii.gz", case / "kept")
    unpacked(case / "ct.nii.gz")
    (case / "kept").rename(case / "ct.nii.gz")
    case = place("two_label_maps")
    shutil.rmtree(case / "segmentations")
    for name in ("labels", "labels_corrected"):
        save(case / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8))
    return folder


TOTALSEGMENTATOR = [
    "sound",
    "totalsegmentator_mask_missing",
    "totalsegmentator_mask_of_another_shape",
    "totalsegmentator_mask_twice",
    "totalsegmentator_masks_that_overlap",
    "totalsegmentator_scan_twice",
    "totalsegmentator_two_label_maps",
]
