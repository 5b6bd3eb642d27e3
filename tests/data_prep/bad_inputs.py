"""Folders of scans as users send them: sound, odd but usable, and unusable in one way.

Each maker gets the place of one sound case (`Place`) and changes it; the name of the
function is the name of the case. What becomes of each is the table in docs/data.md.
"""

import gzip
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID, HTJ2KLossless, RLELossless

SHAPE = (8, 9, 10)  # of the arrays in the files: W, H, D
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])
# Byte offsets of NIfTI-1 fields, from the standard's nifti1.h.
DIM, DATATYPE, PIXDIM, SLOPE, INTER, UNITS = 40, 70, 76, 112, 116, 123
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X, MAGIC = 252, 254, 256, 280, 344


@dataclass(frozen=True)
class Place:
    """One case of the layout of `--source=nifti`, and how to write a DICOM series."""

    folder: Path
    name: str
    write_series: Callable[..., list[Path]]

    @property
    def image(self) -> Path:
        return self.folder / "images" / f"{self.name}.nii.gz"

    @property
    def label(self) -> Path:
        return self.folder / "labels" / f"{self.name}.nii.gz"

    def sound(self) -> tuple[np.ndarray, np.ndarray]:
        return sound(self.name)

    def dicom(self, **tags) -> list[Path]:
        """The image as a DICOM series instead; a tuple gives each slice its own."""
        self.image.unlink()
        hu, _ = self.sound()
        folder = self.image.parent / self.name
        words = {"origin": (0, 0, 0), "spacing": (2, 2, 2)} | tags
        return self.write_series(folder, hu.T, **words)


def sound(name: str) -> tuple[np.ndarray, np.ndarray]:
    """HU and organs 1, 2 and 3 in air, off the border; of each name its own."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 1:4, 1:4] = 1
    label[4:7, 4:7, 4:6] = 2
    label[1:3, 6:8, 6:9] = 3
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    label[6, 1:8, 1:9][rng.random((7, 8)) < 0.3] = 3
    noise = rng.integers(0, 60, SHAPE)
    return np.where(label > 0, 40 + noise, -1000 + noise).astype(np.int16), label


def make_corpus(
    folder: Path, makers: list[Callable[[Place], None]], write_series: Callable
) -> Path:
    """A case for each maker in images/ and labels/ of `folder`."""
    for make in makers:
        place = Place(folder, make.__name__, write_series)
        hu, label = place.sound()
        save(place.image, hu)
        save(place.label, label)
        make(place)
    return folder


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)  # pyright: ignore


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)  # pyright: ignore
    return np.asarray(image.dataobj).copy(), image.affine  # pyright: ignore


def patch(path: Path, *patches: tuple) -> None:
    """Overwrites fields of the header of a .nii.gz: (offset, struct's form, values)."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for offset, form, *values in patches:
        struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(gzip.compress(content))


def unpacked(path: Path) -> Path:
    """The same as a .nii file."""
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    return plain


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


# Odd and usable. Voxels and labels are those of `sound` unless EXPECTED says otherwise.


def as_it_should_be(at: Place) -> None:
    pass


def plain_nii(at: Place) -> None:
    unpacked(at.image)
    unpacked(at.label)


def left_handed_axes(at: Place) -> None:
    for path in (at.image, at.label):
        voxels, _ = load(path)
        moved = np.diag([2.0, -2, 2, 1])
        moved[0, 3] = -14.0
        save(path, voxels[::-1], moved)


def axes_in_another_order(at: Place) -> None:
    for path in (at.image, at.label):
        voxels, affine = load(path)
        save(path, voxels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])


def voxels_of_float64(at: Place) -> None:
    save(at.image, at.sound()[0].astype(np.float64))


def big_endian(at: Place) -> None:
    hu, _ = at.sound()
    header = nib.Nifti1Header(endianness=">")  # pyright: ignore
    image = nib.Nifti1Image(hu.astype(">i2"), AFFINE, header)  # pyright: ignore
    nib.save(image, at.image)  # pyright: ignore


def scl_slope_of_zero(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", 0, 0))


def scl_slope_of_nan(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", np.nan, np.nan))


def four_dimensions_of_one_volume(at: Place) -> None:
    save(at.image, at.sound()[0][..., None])


def sform_and_qform_that_disagree(at: Place) -> None:
    for path in (at.image, at.label):
        patch(path, (QFORM_CODE, "h", 1), (QUATERN_B, "6f", 0, 0, 0, 70, 80, 90))


def neither_sform_nor_qform(at: Place) -> None:
    for path in (at.image, at.label):
        patch(path, (QFORM_CODE, "h", 0), (SFORM_CODE, "h", 0))


def sheared_affine(at: Place) -> None:
    affine = AFFINE.copy()
    affine[:3, 2] = [0, 2 * np.sin(0.2), 2 * np.cos(0.2)]
    for path in (at.image, at.label):
        save(path, load(path)[0], affine)


def label_off_by_a_rounding(at: Place) -> None:
    affine = AFFINE.copy()
    affine[2, 3] = 0.05
    save(at.label, at.sound()[1], affine)


def label_of_float32(at: Place) -> None:
    save(at.label, at.sound()[1].astype(np.float32))


def empty_label(at: Place) -> None:
    save(at.label, np.zeros(SHAPE, np.uint8))


def organ_missing(at: Place) -> None:
    label = at.sound()[1]
    save(at.label, np.where(label == 2, 0, label).astype(np.uint8))


def _renamed(at: Place, name: str) -> None:
    for path in (at.image, at.label):
        path.rename(path.with_name(f"{name}.nii.gz"))


def name_with_spaces(at: Place) -> None:
    _renamed(at, "name with spaces")


def name_beyond_ascii(at: Place) -> None:
    _renamed(at, "Größe 患者")


def link_to_a_scan(at: Place) -> None:
    moved = at.folder / "elsewhere.nii.gz"
    at.image.rename(moved)
    at.image.symlink_to(moved)


def dicom_without_endings(at: Place) -> None:
    at.dicom()


USABLE = [
    as_it_should_be,
    plain_nii,
    left_handed_axes,
    axes_in_another_order,
    voxels_of_float64,
    big_endian,
    scl_slope_of_zero,
    scl_slope_of_nan,
    four_dimensions_of_one_volume,
    sform_and_qform_that_disagree,
    neither_sform_nor_qform,
    sheared_affine,
    label_off_by_a_rounding,
    label_of_float32,
    empty_label,
    organ_missing,
    name_with_spaces,
    name_beyond_ascii,
    link_to_a_scan,
    dicom_without_endings,
]


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """HU and label `[D, H, W]` that a usable case must become at 2 mm, by hand."""
    hu, label = (voxels.T for voxels in sound(name))
    if name == "neither_sform_nor_qform":  # NIfTI: then x runs to the left, y forwards
        hu, label = (voxels[:, ::-1] for voxels in (hu, label))
    if name == "empty_label":
        label = np.zeros_like(label)
    if name == "organ_missing":
        label = np.where(label == 2, 0, label)
    return hu, label


CASE_IDS = {"name_beyond_ascii": "Gr__e___"}  # others: the name of the maker


# Files that are cut, garbage, or of another kind than their names say.


def empty_file(at: Place) -> None:
    at.image.write_bytes(b"")


def cut_in_the_header(at: Place) -> None:
    cut(at.image, 40)


def cut_in_the_middle(at: Place) -> None:
    cut(at.image, at.image.stat().st_size // 2)


def cut_by_one_byte(at: Place) -> None:
    cut(at.image, at.image.stat().st_size - 1)


def plain_cut_in_the_header(at: Place) -> None:
    cut(unpacked(at.image), 200)


def plain_cut_in_the_middle(at: Place) -> None:
    cut(unpacked(at.image), 1000)


def plain_cut_by_one_byte(at: Place) -> None:
    cut(unpacked(at.image), 352 + 2 * 720 - 1)


def label_cut(at: Place) -> None:
    cut(at.label, at.label.stat().st_size - 4)


def gzip_garbage(at: Place) -> None:
    at.image.write_bytes(b"\x1f\x8b" + np.random.default_rng(0).bytes(900))


def gzip_of_text(at: Place) -> None:
    at.image.write_bytes(gzip.compress(b"patient wishes not to take part\n" * 30))


def text_named_gz(at: Place) -> None:
    at.image.write_text("patient wishes not to take part\n")


def text_named_plain(at: Place) -> None:
    unpacked(at.image).write_text("patient wishes not to take part\n" * 30)


def plain_named_gz(at: Place) -> None:
    at.image.write_bytes(gzip.decompress(at.image.read_bytes()))


def gzip_named_plain(at: Place) -> None:
    at.image.rename(at.image.with_suffix(""))


def header_of_a_pair(at: Place) -> None:
    patch(at.image, (MAGIC, "4s", b"ni1\0"))


# Headers that cannot be true.


def terabytes_claimed(at: Place) -> None:
    patch(at.image, (DIM, "4h", 3, 32767, 32767, 32767))


def gigabytes_claimed(at: Place) -> None:
    patch(at.image, (DIM, "4h", 3, 900, 900, 900))


def negative_dimension(at: Place) -> None:
    patch(at.image, (DIM + 4, "h", -9))


def zero_dimension(at: Place) -> None:
    patch(at.image, (DIM + 2, "h", 0))


def nine_dimensions(at: Place) -> None:
    patch(at.image, (DIM, "h", 9))


def two_dimensions(at: Place) -> None:
    save(at.image, at.sound()[0][..., 0])


def four_dimensions(at: Place) -> None:
    hu, _ = at.sound()
    save(at.image, np.stack([hu, hu], -1))


def zero_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 4, "f", 0))


def negative_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 8, "f", -2))


def nan_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 12, "f", np.nan))


def infinite_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 4, "f", np.inf))


def spacing_in_metres(at: Place) -> None:
    save(at.image, at.sound()[0], np.diag([-2e-3, -2e-3, 2e-3, 1]))


def affine_of_zeros(at: Place) -> None:
    patch(at.image, (SROW_X, "12f", *[0.0] * 12))


def affine_of_nan(at: Place) -> None:
    patch(at.image, (SROW_X + 4, "f", np.nan))


def axes_that_are_parallel(at: Place) -> None:
    patch(at.image, (SROW_X, "12f", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0))


def qform_that_is_no_rotation(at: Place) -> None:
    patch(at.image, (QFORM_CODE, "2h", 1, 0), (QUATERN_B, "3f", 5, 5, 5))


def infinite_intercept(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", 1, np.inf))


# Voxels that are no HU.


def nan_voxels(at: Place) -> None:
    hu = at.sound()[0].astype(np.float32)
    hu[1, 2, 3:5] = np.nan
    save(at.image, hu)


def infinite_voxels(at: Place) -> None:
    hu = at.sound()[0].astype(np.float64)
    hu[0, 0, :3] = -np.inf
    save(at.image, hu)


def rgb_voxels(at: Place) -> None:
    save(at.image, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def complex_voxels(at: Place) -> None:
    save(at.image, at.sound()[0].astype(np.complex64))


def type_that_is_none(at: Place) -> None:
    patch(at.image, (DATATYPE, "h", 999))


# Label maps that are none, or of something else.


def label_of_fractions(at: Place) -> None:
    save(at.label, at.sound()[1].astype(np.float32) / 2)


def negative_label(at: Place) -> None:
    label = at.sound()[1].astype(np.int16)
    label[0, 0, 0] = -1
    save(at.label, label)


def label_above_65535(at: Place) -> None:
    label = at.sound()[1].astype(np.int32)
    label[0, 0, 0] = 65536
    save(at.label, label)


def nan_in_the_label(at: Place) -> None:
    label = at.sound()[1].astype(np.float32)
    label[0, 0, 0] = np.nan
    save(at.label, label)


def unknown_label_value(at: Place) -> None:
    label = at.sound()[1]
    label[0, 0, :5] = 9
    save(at.label, label)


def label_of_another_shape(at: Place) -> None:
    save(at.label, at.sound()[1][:-1])


def label_of_another_origin(at: Place) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] = 300, 0, 400
    save(at.label, at.sound()[1], affine)


def label_of_another_spacing(at: Place) -> None:
    save(at.label, at.sound()[1], np.diag([-2.0, -2, 3, 1]))


def label_off_by_a_part_of_a_voxel(at: Place) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = 0.6
    save(at.label, at.sound()[1], affine)


def label_mirrored(at: Place) -> None:
    save(at.label, at.sound()[1], np.diag([-1, 1, 1, 1]) @ AFFINE)


def label_that_is_the_scan(at: Place) -> None:
    save(at.label, at.sound()[0])


# Files that are not there, there twice, or no files.


def image_without_label(at: Place) -> None:
    at.label.unlink()


def label_without_image(at: Place) -> None:
    at.image.unlink()


def both_endings(at: Place) -> None:
    shutil.copy(at.image, at.image.with_name("kept"))
    unpacked(at.image)
    at.image.with_name("kept").rename(at.image)


def names_of_one_id(at: Place) -> None:
    for path in (at.image, at.label):
        shutil.copy(path, path.with_name("names of_one_id.nii.gz"))


def folder_named_as_a_scan(at: Place) -> None:
    at.image.unlink()
    at.image.mkdir()


def pipe(at: Place) -> None:
    at.image.unlink()
    os.mkfifo(at.image)


def link_to_itself(at: Place) -> None:
    at.image.unlink()
    at.image.symlink_to(at.image.name)


def link_to_nowhere(at: Place) -> None:
    at.label.unlink()
    at.label.symlink_to("gone.nii.gz")


def file_that_may_not_be_read(at: Place) -> None:
    at.image.chmod(0)


def empty_folder(at: Place) -> None:
    at.image.unlink()
    (at.image.parent / at.name).mkdir()


def folder_that_holds_itself(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "again").symlink_to(at.image.parent / at.name)


def folder_without_dicom(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "notes.txt").write_text("no slice of a scan " * 20)


# DICOM series; slices are 000.. from the feet.


def dicom_text_named_dcm(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "1.dcm").write_text("no slice of a scan " * 20)


def dicom_without_positions(at: Place) -> None:
    at.dicom(ImagePositionPatient=None)


def dicom_without_slope(at: Place) -> None:
    at.dicom(RescaleSlope=(1, 1, 1, None, *[1] * 6))


def dicom_without_spacing(at: Place) -> None:
    at.dicom(PixelSpacing=None)


def dicom_two_series(at: Place) -> None:
    files = at.dicom(uid="1.2.3")
    hu, _ = at.sound()
    at.write_series(files[0].parent, hu.T[:6], name="b{}", uid="1.2.4")


def dicom_two_series_below(at: Place) -> None:
    files = at.dicom(uid="1.2.3")
    for number, file in enumerate(files):
        below = file.parent / f"{number % 2}"
        below.mkdir(exist_ok=True)
        file.rename(below / file.name)


def dicom_secondary_captures(at: Place) -> None:
    at.dicom(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")


def dicom_localizers(at: Place) -> None:
    at.dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def dicom_of_mr(at: Place) -> None:
    at.dicom(Modality="MR")


def dicom_of_one_slice(at: Place) -> None:
    for file in at.dicom()[1:]:
        file.unlink()


def dicom_slice_missing(at: Place) -> None:
    at.dicom()[4].unlink()


def dicom_slice_twice(at: Place) -> None:
    file = at.dicom()[4]
    shutil.copy(file, file.with_name(f"{file.name}_copy"))


def dicom_slices_unevenly_spaced(at: Place) -> None:
    at.dicom(
        ImagePositionPatient=tuple(
            [0, 0, 2 * k + 0.6 * max(k - 4, 0)] for k in range(10)
        )
    )


def dicom_slices_of_two_sizes(at: Place) -> None:
    at.dicom(Columns=(*[8] * 9, 7))


def dicom_tilted_gantry(at: Place) -> None:
    at.dicom(ImagePositionPatient=tuple([0, 0.4 * k, 2 * k] for k in range(10)))


def dicom_multi_frame(at: Place) -> None:
    at.dicom(NumberOfFrames=9)


def dicom_in_colour(at: Place) -> None:
    at.dicom(SamplesPerPixel=3)


def dicom_absurd_size(at: Place) -> None:
    at.dicom(Rows=30000, Columns=30000)


def dicom_cut_in_the_header(at: Place) -> None:
    cut(at.dicom(name="{:03}.dcm")[4], 300)


def dicom_cut_in_the_pixels(at: Place) -> None:
    file = at.dicom(name="{:03}.dcm")[4]
    cut(file, file.stat().st_size - 9)


def _compressed(file: Path, syntax: str, frame: bytes | None) -> None:
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = encapsulate([frame or data.PixelData])
    data["PixelData"].VR = "OB"
    data.save_as(file)


def dicom_of_a_compression_not_decoded(at: Place) -> None:
    for file in at.dicom():
        _compressed(file, HTJ2KLossless, None)


def dicom_damaged_jpeg(at: Place) -> None:
    _compressed(at.dicom()[4], "1.2.840.10008.1.2.4.70", b"\xff\xd8" + bytes(60))


def dicom_damaged_rle(at: Place) -> None:
    _compressed(at.dicom()[4], RLELossless, b"\x02" + bytes(70))


UNUSABLE = [
    empty_file,
    cut_in_the_header,
    cut_in_the_middle,
    cut_by_one_byte,
    plain_cut_in_the_header,
    plain_cut_in_the_middle,
    plain_cut_by_one_byte,
    label_cut,
    gzip_garbage,
    gzip_of_text,
    text_named_gz,
    text_named_plain,
    plain_named_gz,
    gzip_named_plain,
    header_of_a_pair,
    terabytes_claimed,
    gigabytes_claimed,
    negative_dimension,
    zero_dimension,
    nine_dimensions,
    two_dimensions,
    four_dimensions,
    zero_spacing,
    negative_spacing,
    nan_spacing,
    infinite_spacing,
    spacing_in_metres,
    affine_of_zeros,
    affine_of_nan,
    axes_that_are_parallel,
    qform_that_is_no_rotation,
    infinite_intercept,
    nan_voxels,
    infinite_voxels,
    rgb_voxels,
    complex_voxels,
    type_that_is_none,
    label_of_fractions,
    negative_label,
    label_above_65535,
    nan_in_the_label,
    unknown_label_value,
    label_of_another_shape,
    label_of_another_origin,
    label_of_another_spacing,
    label_off_by_a_part_of_a_voxel,
    label_mirrored,
    label_that_is_the_scan,
    image_without_label,
    label_without_image,
    both_endings,
    names_of_one_id,
    folder_named_as_a_scan,
    pipe,
    link_to_itself,
    link_to_nowhere,
    file_that_may_not_be_read,
    empty_folder,
    folder_that_holds_itself,
    folder_without_dicom,
    dicom_text_named_dcm,
    dicom_without_positions,
    dicom_without_slope,
    dicom_without_spacing,
    dicom_two_series,
    dicom_two_series_below,
    dicom_secondary_captures,
    dicom_localizers,
    dicom_of_mr,
    dicom_of_one_slice,
    dicom_slice_missing,
    dicom_slice_twice,
    dicom_slices_unevenly_spaced,
    dicom_slices_of_two_sizes,
    dicom_tilted_gantry,
    dicom_multi_frame,
    dicom_in_colour,
    dicom_absurd_size,
    dicom_cut_in_the_header,
    dicom_cut_in_the_pixels,
    dicom_of_a_compression_not_decoded,
    dicom_damaged_jpeg,
    dicom_damaged_rle,
]


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
