"""Files and label maps of the corpus that are unusable: see bad_inputs.py."""

import gzip
import os
import shutil

import numpy as np
from bad_inputs import (
    AFFINE,
    DATATYPE,
    DIM,
    MAGIC,
    PIXDIM,
    QFORM_CODE,
    QUATERN_B,
    SHAPE,
    SLOPE,
    SROW_X,
    Place,
    cut,
    patch,
    save,
    unpacked,
    unusable,
)

# Files that are cut, garbage, or of another kind than their names say.


@unusable
def empty_file(at: Place) -> None:
    at.image.write_bytes(b"")


@unusable
def cut_in_the_header(at: Place) -> None:
    cut(at.image, 40)


@unusable
def cut_in_the_middle(at: Place) -> None:
    cut(at.image, at.image.stat().st_size // 2)


@unusable
def cut_by_one_byte(at: Place) -> None:
    cut(at.image, at.image.stat().st_size - 1)


@unusable
def plain_cut_in_the_header(at: Place) -> None:
    cut(unpacked(at.image), 200)


@unusable
def plain_cut_in_the_middle(at: Place) -> None:
    cut(unpacked(at.image), 1000)


@unusable
def plain_cut_by_one_byte(at: Place) -> None:
    cut(unpacked(at.image), 352 + 2 * 720 - 1)


@unusable
def label_cut(at: Place) -> None:
    cut(at.label, at.label.stat().st_size - 4)


@unusable
def gzip_garbage(at: Place) -> None:
    at.image.write_bytes(b"\x1f\x8b" + np.random.default_rng(0).bytes(900))


@unusable
def gzip_of_text(at: Place) -> None:
    at.image.write_bytes(gzip.compress(b"patient wishes not to take part\n" * 30))


@unusable
def text_named_gz(at: Place) -> None:
    at.image.write_text("patient wishes not to take part\n")


@unusable
def text_named_plain(at: Place) -> None:
    unpacked(at.image).write_text("patient wishes not to take part\n" * 30)


@unusable
def plain_named_gz(at: Place) -> None:
    at.image.write_bytes(gzip.decompress(at.image.read_bytes()))


@unusable
def gzip_named_plain(at: Place) -> None:
    at.image.rename(at.image.with_suffix(""))


@unusable
def header_of_a_pair(at: Place) -> None:
    patch(at.image, (MAGIC, "4s", b"ni1\0"))


# Headers that cannot be true.


@unusable
def terabytes_claimed(at: Place) -> None:
    patch(at.image, (DIM, "4h", 3, 32767, 32767, 32767))


@unusable
def gigabytes_claimed(at: Place) -> None:
    patch(at.image, (DIM, "4h", 3, 900, 900, 900))


@unusable
def negative_dimension(at: Place) -> None:
    patch(at.image, (DIM + 4, "h", -9))


@unusable
def zero_dimension(at: Place) -> None:
    patch(at.image, (DIM + 2, "h", 0))


@unusable
def nine_dimensions(at: Place) -> None:
    patch(at.image, (DIM, "h", 9))


@unusable
def two_dimensions(at: Place) -> None:
    save(at.image, at.sound()[0][..., 0])


@unusable
def four_dimensions(at: Place) -> None:
    hu, _ = at.sound()
    save(at.image, np.stack([hu, hu], -1))


@unusable
def zero_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 4, "f", 0))


@unusable
def negative_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 8, "f", -2))


@unusable
def nan_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 12, "f", np.nan))


@unusable
def infinite_spacing(at: Place) -> None:
    patch(at.image, (PIXDIM + 4, "f", np.inf))


@unusable
def spacing_in_metres(at: Place) -> None:
    save(at.image, at.sound()[0], np.diag([-2e-3, -2e-3, 2e-3, 1]))


@unusable
def affine_of_zeros(at: Place) -> None:
    patch(at.image, (SROW_X, "12f", *[0.0] * 12))


@unusable
def affine_of_nan(at: Place) -> None:
    patch(at.image, (SROW_X + 4, "f", np.nan))


@unusable
def axes_that_are_parallel(at: Place) -> None:
    patch(at.image, (SROW_X, "12f", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0))


@unusable
def qform_that_is_no_rotation(at: Place) -> None:
    patch(at.image, (QFORM_CODE, "2h", 1, 0), (QUATERN_B, "3f", 5, 5, 5))


@unusable
def infinite_intercept(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", 1, np.inf))


# Voxels that are no HU.


@unusable
def nan_voxels(at: Place) -> None:
    hu = at.sound()[0].astype(np.float32)
    hu[1, 2, 3:5] = np.nan
    save(at.image, hu)


@unusable
def infinite_voxels(at: Place) -> None:
    hu = at.sound()[0].astype(np.float64)
    hu[0, 0, :3] = -np.inf
    save(at.image, hu)


@unusable
def rgb_voxels(at: Place) -> None:
    save(at.image, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


@unusable
def picture_of_8_bits(at: Place) -> None:
    grey = np.clip(at.sound()[0] * 2, 0, 255)
    save(at.image, (grey + np.arange(10) * 8).astype(np.uint8))


@unusable
def label_map_instead_of_the_scan(at: Place) -> None:
    save(at.image, at.sound()[1])


@unusable
def one_value_everywhere(at: Place) -> None:
    save(at.image, np.full(SHAPE, -1000, np.int16))


@unusable
def complex_voxels(at: Place) -> None:
    save(at.image, at.sound()[0].astype(np.complex64))


@unusable
def type_that_is_none(at: Place) -> None:
    patch(at.image, (DATATYPE, "h", 999))


# Label maps that are none, or of something else.


@unusable
def label_of_fractions(at: Place) -> None:
    save(at.label, at.sound()[1].astype(np.float32) / 2)


@unusable
def negative_label(at: Place) -> None:
    label = at.sound()[1].astype(np.int16)
    label[0, 0, 0] = -1
    save(at.label, label)


@unusable
def label_above_65535(at: Place) -> None:
    label = at.sound()[1].astype(np.int32)
    label[0, 0, 0] = 65536
    save(at.label, label)


@unusable
def nan_in_the_label(at: Place) -> None:
    label = at.sound()[1].astype(np.float32)
    label[0, 0, 0] = np.nan
    save(at.label, label)


@unusable
def unknown_label_value(at: Place) -> None:
    label = at.sound()[1]
    label[0, 0, :5] = 9
    save(at.label, label)


@unusable
def label_of_another_shape(at: Place) -> None:
    save(at.label, at.sound()[1][:-1])


@unusable
def label_of_another_origin(at: Place) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] = 300, 0, 400
    save(at.label, at.sound()[1], affine)


@unusable
def label_of_another_spacing(at: Place) -> None:
    save(at.label, at.sound()[1], np.diag([-2.0, -2, 3, 1]))


@unusable
def label_off_by_a_part_of_a_voxel(at: Place) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = 0.6
    save(at.label, at.sound()[1], affine)


@unusable
def label_mirrored(at: Place) -> None:
    save(at.label, at.sound()[1], np.diag([-1, 1, 1, 1]) @ AFFINE)


@unusable
def label_that_is_the_scan(at: Place) -> None:
    save(at.label, at.sound()[0])


# Files that are not there, there twice, or no files.


@unusable
def image_without_label(at: Place) -> None:
    at.label.unlink()


@unusable
def label_without_image(at: Place) -> None:
    at.image.unlink()


@unusable
def both_endings(at: Place) -> None:
    shutil.copy(at.image, at.image.with_name("kept"))
    unpacked(at.image)
    at.image.with_name("kept").rename(at.image)


@unusable
def names_of_one_id(at: Place) -> None:
    for path in (at.image, at.label):
        shutil.copy(path, path.with_name("names of_one_id.nii.gz"))


@unusable
def folder_named_as_a_scan(at: Place) -> None:
    at.image.unlink()
    at.image.mkdir()


@unusable
def pipe(at: Place) -> None:
    at.image.unlink()
    os.mkfifo(at.image)


@unusable
def link_to_itself(at: Place) -> None:
    at.image.unlink()
    at.image.symlink_to(at.image.name)


@unusable
def link_to_nowhere(at: Place) -> None:
    at.label.unlink()
    at.label.symlink_to("gone.nii.gz")


@unusable
def file_that_may_not_be_read(at: Place) -> None:
    at.image.chmod(0)


@unusable
def empty_folder(at: Place) -> None:
    at.image.unlink()
    (at.image.parent / at.name).mkdir()


@unusable
def folder_that_holds_itself(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "again").symlink_to(at.image.parent / at.name)


@unusable
def folder_without_dicom(at: Place) -> None:
    empty_folder(at)
    (at.image.parent / at.name / "notes.txt").write_text("no slice of a scan " * 20)
