"""Files that are no scan: one line each with path, what is wrong, what to do."""

import gzip
import os
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest

from attunet_jax import volume
from attunet_jax.errors import BadData

# Byte offsets of NIfTI-1 fields, from the standard's nifti1.h.
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, INTER = 40, 70, 76, 108, 112, 116
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X, MAGIC = 252, 254, 256, 280, 344


def scan(array=None, affine=None):
    if array is None:
        array = np.random.default_rng(0).integers(0, 100, (6, 7, 8)).astype(np.int16)
    return nibabel.Nifti1Image(
        array, np.eye(4) if affine is None else affine
    ).to_bytes()


def patched(*patches, content=None):
    content = bytearray(content or scan())
    for offset, form, *values in patches:
        struct.pack_into("<" + form, content, offset, *values)
    return bytes(content)


def of_voxel(value, dtype="f4"):
    array = np.zeros((6, 7, 8), dtype)
    array[1, 2, 3] = value
    return scan(array)


RGB = np.zeros((6, 7, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
NAN = float("nan")
HEADERS = {
    "text": (b"this is no scan " * 60, "not a NIfTI file"),
    "html": (b"<!DOCTYPE html>" + b" " * 600, "not a NIfTI file"),
    "empty": (b"", "not a NIfTI file"),
    "two bytes": (b"\x5c\x01", "not a NIfTI file"),
    "half a header": (scan()[:200], "not a NIfTI file"),
    "wrong magic": (patched((MAGIC, "4s", b"abc\0")), "not a NIfTI file"),
    "pair": (patched((MAGIC, "4s", b"ni1\0")), ".hdr/.img pair"),
    "no dimensions": (patched((DIM, "h", 0)), "damaged header: dimensions"),
    "nine dimensions": (patched((DIM, "h", 9)), "damaged header: dimensions"),
    "zero size": (patched((DIM + 2, "h", 0)), "damaged header: dimensions"),
    "negative size": (patched((DIM + 4, "h", -7)), "damaged header: dimensions"),
    "absurd size": (patched((DIM + 2, "3h", *[32767] * 3)), "too many to be a scan"),
    "absurd 7-D": (patched((DIM, "8h", 7, *[32767] * 7)), "7-D image"),
    "large claim": (patched((DIM + 2, "3h", 900, 900, 900)), "truncated"),
    "1-D": (scan(np.zeros(5, np.int16)), "1-D image (5)"),
    "2-D": (scan(np.zeros((5, 6), np.int16)), "2-D image (5 x 6)"),
    "4-D": (scan(np.zeros((5, 6, 7, 2), np.int16)), "4-D image (5 x 6 x 7 x 2)"),
    "5-D": (scan(np.zeros((5, 6, 7, 1, 3), np.int16)), "5-D image (5 x 6 x 7 x 1 x 3)"),
    "RGB": (scan(RGB), "voxels of type RGB"),
    "complex": (scan(np.zeros((6, 7, 8), np.complex64)), "voxels of type complex64"),
    "bits": (patched((DATATYPE, "h", 1)), "voxels of type binary"),
    "unknown type": (patched((DATATYPE, "h", 999)), "voxels of type code 999"),
    "zero spacing": (patched((PIXDIM + 4, "f", 0)), "spacing of 0 x 1 x 1 mm"),
    "negative spacing": (patched((PIXDIM + 8, "f", -2)), "spacing of 1 x -2 x 1 mm"),
    "NaN spacing": (patched((PIXDIM + 12, "f", NAN)), "spacing of 1 x 1 x nan mm"),
    "infinite spacing": (patched((PIXDIM + 4, "f", np.inf)), "spacing of inf x 1"),
    "metres": (scan(affine=np.diag([8e-4, 8e-4, 5e-3, 1])), "spacing of 0.0008 x"),
    "sform of metres": (
        patched((SROW_X, "12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1e-3, 0)),
        "spacing of 1 x 1 x 0.001 mm",
    ),
    "zero affine": (patched((SROW_X, "12f", *[0.0] * 12)), "affine is all zero"),
    "zero but origin": (
        patched((SROW_X, "12f", 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 5)),
        "affine is all zero",
    ),
    "zero column": (
        patched((SROW_X, "12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)),
        "singular (an axis has no length)",
    ),
    "parallel axes": (
        patched((SROW_X, "12f", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0)),
        "singular (two axes are parallel)",
    ),
    "NaN affine": (patched((SROW_X + 4, "f", NAN)), "affine holds NaN"),
    "no rotation": (
        patched((SFORM_CODE, "h", 0), (QFORM_CODE, "h", 1), (QUATERN_B, "3f", 5, 5, 5)),
        "qform is not a rotation",
    ),
    "NaN rotation": (
        patched((SFORM_CODE, "h", 0), (QFORM_CODE, "h", 1), (QUATERN_B, "f", NAN)),
        "affine holds NaN",
    ),
    "early voxels": (patched((VOX_OFFSET, "f", 0)), "cannot begin at byte 0"),
    "late voxels": (patched((VOX_OFFSET, "f", 1e6)), "truncated"),
    "NaN offset": (patched((VOX_OFFSET, "f", NAN)), "cannot begin at byte nan"),
    "bad scaling": (patched((SLOPE, "2f", 2, np.inf)), "scl_inter is not a number"),
    "overflow": (
        patched((SLOPE, "2f", 3e38, 0), content=of_voxel(1e30)),
        "1 voxels are NaN or infinite",
    ),
    "NaN voxel": (of_voxel(np.nan), "1 voxels are NaN or infinite"),
    "infinite voxel": (of_voxel(-np.inf, "f8"), "1 voxels are NaN or infinite"),
    "too large voxel": (of_voxel(1e300, "f8"), "1 voxels are NaN or infinite"),
    "truncated": (scan()[:-1], "truncated: the header says 672 bytes"),
    "no voxels": (scan()[:352], "the file holds at most 0"),
    "half the gap": (scan()[:350], "the file holds at most 0"),
}


def refusal(read, path):
    with pytest.raises(BadData) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message and len(message) < 80 + len(f"{path}: ") + 80
    return message


@pytest.mark.parametrize("read", [volume.read_image, volume.read_labels])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_bad_file_is_named_in_one_line(tmp_path, capfd, caplog, name, read):
    path = tmp_path / name
    for what, (content, words) in HEADERS.items():
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        message = refusal(read, path)
        assert words in message, what
        assert message.count(";") <= 1, what
        assert not caplog.records and capfd.readouterr() == ("", ""), what


PACKED = gzip.compress(scan(), mtime=0)
FLIPPED = PACKED[:400] + bytes([PACKED[400] ^ 255]) + PACKED[401:]
FILES = {
    "cut gzip": ("a.nii.gz", PACKED[: len(PACKED) // 2], "truncated or damaged gzip"),
    "gzip cut in its header": ("a.nii.gz", PACKED[:5], "truncated or damaged gzip"),
    "gzip without checksum": ("a.nii.gz", PACKED[:-8], "truncated or damaged gzip"),
    "gzip of wrong checksum": (
        "a.nii.gz",
        PACKED[:-8] + bytes(8),
        "truncated or damaged gzip",
    ),
    "flipped bits": ("a.nii.gz", FLIPPED, "truncated or damaged gzip"),
    "gzip garbage": ("a.nii.gz", b"\x1f\x8b" + b"\xff" * 900, "damaged gzip"),
    "garbage": ("a.nii.gz", b"\xfe" * 900, "content is not gzip"),
    "empty gz": ("a.nii.gz", b"", "content is not gzip"),
    "plain named gz": ("a.nii.gz", scan(), "rename it to .nii "),
    "gzip named plain": ("a.nii", PACKED, "rename it to .nii.gz"),
    "other name": ("a.img", scan(), "not a .nii or .nii.gz file"),
    "no extension": ("nii", scan(), "not a .nii or .nii.gz file"),
}


def test_a_damaged_or_misnamed_file_is_named_in_one_line(tmp_path):
    for what, (name, content, words) in FILES.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert words in refusal(volume.read_image, path), what


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path):
    assert "no such file" in refusal(volume.read_image, tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").mkdir()
    assert "not a file" in refusal(volume.read_image, tmp_path / "b.nii")
    os.mkfifo(tmp_path / "c.nii")  # opening it would wait for ever
    assert "not a file" in refusal(volume.read_image, tmp_path / "c.nii")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    path = tmp_path / "a.nii"
    path.symlink_to(path)
    assert "cannot be read (Too many levels" in refusal(volume.read_image, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(scan())
    path.chmod(0)
    assert "cannot be read (Permission denied)" in refusal(volume.read_image, path)


def test_a_size_the_file_cannot_hold_is_refused_before_memory_is_taken(tmp_path):
    for sizes in ((900, 900, 900), (32767, 32767, 32767)):
        content = patched((DIM + 2, "3h", *sizes))
        (tmp_path / "a.nii").write_bytes(content)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
        for path in sorted(tmp_path.iterdir()):
            tracemalloc.start()
            try:
                refusal(volume.read_image, path)
                assert tracemalloc.get_traced_memory()[1] < 2**20
            finally:
                tracemalloc.stop()


def test_a_scan_too_large_for_memory_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(scan())

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", no_memory)
    assert "too large for the memory" in refusal(volume.read_image, path)


def test_labels_a_hair_off_whole_numbers_are_these(tmp_path):
    """By float arithmetic, or by a writer that scales into integers."""
    path = tmp_path / "a.nii"
    labels = np.random.default_rng(0).integers(0, 118, (6, 7, 8))
    labels[0, 0, :2] = 0, 117
    expected = labels.T[:, ::-1, ::-1]  # from right and back to left and front
    off = labels + np.random.default_rng(1).uniform(-9e-4, 9e-4, labels.shape)
    for dtype in ("f4", "f8"):
        path.write_bytes(scan(off.astype(dtype)))
        np.testing.assert_array_equal(volume.read_labels(path).voxels, expected)
    for dtype in (np.uint8, np.int16, np.int32):
        image = nibabel.Nifti1Image(labels.astype(float), np.eye(4))
        image.set_data_dtype(dtype)  # nibabel scales floats to the type's whole range
        image.to_filename(path)
        stored = nibabel.Nifti1Image.from_filename(path)
        assert nibabel.load(path).dataobj.slope != 1  # pyright: ignore
        assert not np.array_equal(np.asarray(stored.dataobj), labels)
        np.testing.assert_array_equal(volume.read_labels(path).voxels, expected)


def test_labels_that_are_no_labels_are_named(tmp_path):
    path = tmp_path / "a.nii"
    scaled = patched((SLOPE, "2f", 1.5, 0), content=of_voxel(1, "i4"))
    for content, words in [
        (of_voxel(1.5), "label 1.5 is not a whole number (1 such voxels)"),
        (scaled, "label 1.5 is not a whole number (1 such voxels)"),
        (of_voxel(1.002), "label 1.002 is not a whole number (1 such voxels)"),
        (of_voxel(-1), "label -1 is outside 0 to 65535"),
        (of_voxel(-1, "i4"), "label -1 is outside 0 to 65535"),
        (of_voxel(-1024.0), "label -1024 is outside 0 to 65535"),
        (of_voxel(65536), "label 65536 is outside 0 to 65535"),
        (of_voxel(65536, "i4"), "label 65536 is outside 0 to 65535"),
    ]:
        path.write_bytes(content)
        assert words in refusal(volume.read_labels, path)
        assert volume.read_image(path).voxels.shape == (8, 7, 6)  # valid as an image
