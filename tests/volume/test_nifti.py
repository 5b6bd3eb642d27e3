"""On-disk types, scalings and headers against nibabel; files written whole."""

import gzip

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from attunet_jax import volume
from attunet_jax.errors import BadArguments, BadData

AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.8, 0, -120], [0, 0, 5, 3], [0, 0, 0, 1.0]])
# File order x, y, z of AFFINE (L A S) to [D, H, W]: reverse the axes, flip y.
TO_CANONICAL = (slice(None), slice(None, None, -1), slice(None))


def expected(array):
    return array.T[TO_CANONICAL]


def save(path, array, affine=AFFINE, kind=nibabel.Nifti1Image, **header):
    image = kind(array, affine)
    for field, value in header.items():
        image.header[field] = value
    image.to_filename(path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_whole_hu_of_any_type_come_as_int16(tmp_path, name):
    path = tmp_path / name
    for dtype in "u1 i1 i2 >i2 u2 i4 u4 i8 u8 f4 >f8".split():
        low = 0 if np.dtype(dtype).kind == "u" else -100
        array = np.arange(low, low + 24).reshape(2, 3, 4).astype(dtype)
        stored = nibabel.Nifti1Image(array, AFFINE, dtype=dtype)
        stored.header.set_data_dtype(dtype)
        content = stored.to_bytes()
        packed = name.lower().endswith("gz")
        path.write_bytes(gzip.compress(content) if packed else content)
        for image in (volume.read_image(path), volume.read_scan(str(path))):
            assert image.voxels.dtype == np.int16 and image.voxels.dtype.isnative
            assert image.voxels.flags.c_contiguous
            np.testing.assert_array_equal(image.voxels, expected(array))
            assert image.path == str(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_either_nifti_version_of_either_byte_order_reads(tmp_path, kind, order):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = kind.header_class(endianness=order)
    kind(array, AFFINE, header).to_filename(tmp_path / "a.nii")
    size = np.frombuffer((tmp_path / "a.nii").read_bytes()[:4], f"{order}i4")
    assert size in (348, 540)  # the file is what the test's name says
    np.testing.assert_array_equal(
        volume.read_image(tmp_path / "a.nii").voxels, expected(array)
    )


@pytest.mark.parametrize("slope, inter", [(1, -1024), (2, 10), (0, 5), (np.nan, 5)])
def test_scl_slope_and_inter_are_applied_as_nibabel_does(tmp_path, slope, inter):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / "a.nii"
    save(path, array)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(content)
    truth = nibabel.Nifti1Image.from_filename(path).get_fdata()
    got = volume.read_image(path).voxels
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, expected(truth))


def test_fractions_of_hu_come_as_float32(tmp_path):
    array = np.linspace(-1000, 1000, 24, dtype=np.float64).reshape(2, 3, 4)
    got = volume.read_image(save(tmp_path / "a.nii.gz", array)).voxels
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected(array.astype(np.float32)))


def test_whole_numbers_beyond_int16_come_as_float32(tmp_path):
    array = np.full((2, 3, 4), 40000, np.int32)
    got = volume.read_image(save(tmp_path / "a.nii", array)).voxels
    assert got.dtype == np.float32 and (got == 40000).all()


def test_values_outside_the_range_of_a_scanner_are_kept(tmp_path):
    array = np.full((2, 3, 4), 3382, np.int32)
    array[0, 0, 0] = -1207
    got = volume.read_image(save(tmp_path / "a.nii", array)).voxels
    assert (got.min(), got.max()) == (-1207, 3382)


def test_labels_come_in_the_smallest_unsigned_type(tmp_path):
    for largest, dtype in ((1, "u1"), (255, "u1"), (256, "u2"), (65535, "u2")):
        for stored in (np.int32, np.float64):
            array = np.zeros((2, 3, 4), stored)
            array[1, 2, 3] = largest
            got = volume.read_labels(save(tmp_path / "a.nii", array)).voxels
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, expected(array))


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    image = volume.read_image(save(tmp_path / "a.nii", array))
    assert image.grid.shape == (2, 3, 4)
    np.testing.assert_array_equal(image.voxels, expected(array[..., 0]))


@pytest.mark.parametrize("sform, qform", [(1, 1), (0, 1), (2, 0), (0, 0)])
def test_the_affine_is_chosen_as_nibabel_chooses_it(tmp_path, sform, qform):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4, 1), np.uint8))
    content = bytearray(path.read_bytes())
    content[252:256] = np.array([qform, sform], "<i2").tobytes()
    content[280:284] = np.array([-0.9], "<f4").tobytes()  # sform unlike qform
    path.write_bytes(content)
    truth = nibabel.Nifti1Image.from_filename(path).affine
    np.testing.assert_array_equal(volume.read_image(path).grid.affine, truth)


def test_a_header_extension_before_the_voxels_is_skipped(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(array, AFFINE)
    extension = Nifti1Extension("comment", b"a note " * 40)
    image.header.extensions.append(extension)
    image.to_filename(tmp_path / "a.nii.gz")
    got = volume.read_image(tmp_path / "a.nii.gz").voxels
    np.testing.assert_array_equal(got, expected(array))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "new/folder/a.nii.gz"])
def test_a_written_file_reads_in_nibabel_with_codes_and_units(tmp_path, name):
    array = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    volume.write_nifti(tmp_path / name, array, AFFINE)
    image = nibabel.Nifti1Image.from_filename(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(np.asarray(image.affine), AFFINE, atol=1e-4)
    np.testing.assert_allclose(np.asarray(image.get_qform()), AFFINE, atol=1e-4)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    assert list((tmp_path / name).parent.iterdir()) == [tmp_path / name]


def test_equal_arrays_are_written_as_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        volume.write_nifti(tmp_path / name, np.ones((3, 3, 3), np.uint8), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.nii.gz"
    volume.write_nifti(path, np.ones((3, 3, 3), np.uint8), AFFINE)
    before = path.read_bytes()

    def full_disk(self, content):
        assert len(content) < 352 or write(self, content[:100])
        raise OSError(28, "No space left on device")

    write = gzip.GzipFile.write
    monkeypatch.setattr(gzip.GzipFile, "write", full_disk)
    with pytest.raises(BadData, match=f"^{tmp_path}: .*a.nii.gz.*No space left"):
        volume.write_nifti(path, np.zeros((3, 3, 3), np.uint8), AFFINE)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadData, match=f"^{tmp_path}/file: .*another folder"):
        volume.write_nifti(tmp_path / "file/a.nii", np.zeros((2, 2, 2), "u1"), AFFINE)


def test_a_name_that_is_no_nifti_name_is_refused(tmp_path):
    with pytest.raises(BadArguments, match="a.mha.*must end with .nii or .nii.gz"):
        volume.write_nifti(tmp_path / "a.mha", np.zeros((2, 2, 2), "u1"), AFFINE)


@pytest.mark.parametrize("value", [256, -1, 0.5])
def test_labels_that_do_not_fit_are_never_wrapped_round(tmp_path, value):
    grid = volume.Grid((2, 3, 4), AFFINE)
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        volume.write_on_grid(tmp_path / "a.nii", np.full((4, 3, 2), value), grid)
    assert not list(tmp_path.iterdir())
