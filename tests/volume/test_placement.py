"""Where a header places voxels, as nibabel and as ITK read it, and that it is kept."""

from itertools import product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header

from attunet_jax.errors import BadData
from attunet_jax.volume import Grid, Placement, read_image, write_on_grid

SHAPE = (5, 6, 7)
AFFINE = np.array([[-0.8, 0, 0, 30], [0, 0.9, 0, -40], [0, 0, 2.5, 10], [0, 0, 0, 1.0]])
MOVED = AFFINE + np.array([[0, 0, 0, 16], [0, 0, 0, -9], [0, 0, 0, 4], [0, 0, 0, 0]])
UNITS_MM = {0: 1, 1: 1000, 2: 1, 3: 0.001}  # of xyzt_units, from the standard
RAS_OF_LPS = np.diag([-1.0, -1, 1, 1])


def turned(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return turn @ AFFINE


def scaled(affine: np.ndarray, unit_mm: float) -> np.ndarray:
    return np.diag([1 / unit_mm] * 3 + [1]) @ affine


def write(path, qform, qcode, sform, scode, *, unit=2, **fields):
    """Writes a scan with these fields by nibabel's header, which repairs nothing."""
    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header.set_qform(scaled(qform, UNITS_MM[unit]), qcode)
    header.set_sform(scaled(sform, UNITS_MM[unit]), scode)
    header["xyzt_units"], header["magic"], header["vox_offset"] = unit, b"n+1", 352
    for name, value in fields.items():
        header[name] = value
    voxels = np.arange(np.prod(SHAPE), dtype="<i2") - 1000
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes())
    return path


def in_itk(path) -> np.ndarray:
    """The affine (RAS+ mm) of what SimpleITK reads."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return RAS_OF_LPS @ affine


def in_nibabel(path) -> np.ndarray:
    return np.asarray(nibabel.Nifti1Image.from_filename(path).affine)


def apart_mm(a: np.ndarray, b: np.ndarray) -> float:
    corners = np.array([[*c, 1] for c in product(*((0, n - 1) for n in SHAPE))]).T
    return np.linalg.norm(((a - b) @ corners)[:3], axis=0).max()


def test_a_label_map_lies_on_its_scan_in_itk_and_in_nibabel_whatever_the_header_says(
    tmp_path,
):
    sitk.ProcessObject_SetGlobalWarningDisplay(False)
    forms = ((AFFINE, AFFINE), (AFFINE, MOVED), (turned(10), AFFINE))
    pixdims = (None, [1, 1.5, 1.5, 2.5])
    choices = product(range(5), range(5), forms, pixdims)
    doubted = 0
    for number, (qcode, scode, (qform, sform), pixdim) in enumerate(choices):
        unit = (2, 1, 3, 2, 0, 2, 2)[number % 7]  # 7 meets every other choice
        scan, made = tmp_path / "scan.nii", tmp_path / "map.nii"
        write(scan, qform, qcode, sform, scode, unit=unit)
        if pixdim:
            data = bytearray(scan.read_bytes())
            lengths = np.array(pixdim[1:]) / UNITS_MM[unit]
            data[80:92] = lengths.astype("<f4").tobytes()
            scan.write_bytes(data)
        volume = read_image(scan)
        write_on_grid(made, np.zeros(volume.voxels.shape, np.uint8), volume.grid)
        what = (qcode, scode, unit, pixdim)
        np.testing.assert_array_equal(in_nibabel(made), in_nibabel(scan), str(what))
        itk = in_itk(scan)
        np.testing.assert_array_equal(in_itk(made), itk, str(what))
        # What is read, and whether ITK's reading is said to differ.
        ours = scaled(in_nibabel(scan), 1 / UNITS_MM[unit])
        np.testing.assert_allclose(volume.grid.affine, ours, rtol=1e-6, atol=1e-9)
        placement = volume.grid.placement
        assert placement is not None
        found = placement.itk_affine()
        assert found is not None
        np.testing.assert_allclose(found, itk, rtol=1e-5, atol=1e-4)
        doubt = placement.doubt(volume.grid.shape, volume.grid.affine)
        assert (doubt is not None) == (apart_mm(itk, ours) > 0.1), what
        doubted += doubt is not None
    assert 30 < doubted < 120  # of 150: both ways were taken


def test_fields_come_back_from_their_numbers(tmp_path):
    scan = write(tmp_path / "a.nii", turned(7), 3, MOVED, 4, unit=1)
    placement = read_image(scan).grid.placement
    assert placement is not None and placement.numbers().shape == (25,)
    assert Placement.of_numbers(placement.numbers()) == placement
    fields = Nifti1Header()
    placement.write_into(fields)
    truth = nibabel.Nifti1Image.from_filename(scan).header
    for name in ("pixdim", "qform_code", "sform_code", "xyzt_units", "qoffset_y"):
        for found, expected in zip(
            np.ravel(fields[name])[:4], np.ravel(truth[name])[:4], strict=True
        ):
            assert found == expected, name
    for name in ("quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(fields[name], truth[name], name)


def test_a_scan_that_itk_refuses_is_read_and_said(tmp_path):
    skewed = AFFINE.copy()
    skewed[1, 2] = 0.3
    scan = write(tmp_path / "a.nii", AFFINE, 0, skewed, 2)
    with pytest.raises(RuntimeError):
        in_itk(scan)
    grid = read_image(scan).grid
    np.testing.assert_allclose(grid.affine, in_nibabel(scan), rtol=1e-6)
    assert grid.placement is not None
    assert "ITK (3D Slicer) refuses" in (grid.placement.doubt(SHAPE, grid.affine) or "")


def test_a_qfac_of_zero_is_one(tmp_path):
    turn = np.diag([-1, -1, 1, 1]) @ np.abs(AFFINE)  # half a turn about z
    for qfac, sign in ((0, 1), (1, 1), (-1, -1), (np.nan, 1)):
        scan = write(tmp_path / "a.nii", turn, 1, AFFINE, 0)
        data = bytearray(scan.read_bytes())
        data[76:80] = np.array([qfac], "<f4").tobytes()
        scan.write_bytes(data)
        got = read_image(scan).grid.affine
        np.testing.assert_allclose(got, turn @ np.diag([1, 1, sign, 1]), atol=1e-5)
        np.testing.assert_allclose(got, in_itk(scan), atol=1e-4)


def test_a_quaternion_a_hair_too_long_is_a_rotation(tmp_path):
    half_turn = np.diag([1, -1, -1, 1]) @ np.abs(AFFINE)
    for digits in (7, 4, 3, 2, 1):
        scan = write(tmp_path / "a.nii", half_turn, 1, AFFINE, 0)
        third = np.ceil(10**digits / np.sqrt(3)) / 10**digits
        length = 3 * third**2
        assert length > 1
        data = bytearray(scan.read_bytes())
        data[256:268] = np.full(3, third, "<f4").tobytes()
        scan.write_bytes(data)
        if length < 1.01:
            got = read_image(scan).grid.affine
            np.testing.assert_allclose(got, in_itk(scan), atol=1e-4)
        else:
            with pytest.raises(BadData, match="qform is not a rotation"):
                read_image(scan)
    assert length > 1.01  # both ways were taken


def test_a_unit_that_the_numbers_do_not_have_is_not_believed(tmp_path):
    for unit, name in ((1, "metres"), (3, "micrometres")):
        scan = write(tmp_path / "a.nii", AFFINE, 1, AFFINE, 1, xyzt_units=unit)
        grid = read_image(scan).grid
        np.testing.assert_allclose(grid.affine, AFFINE, rtol=1e-6)
        assert grid.placement is not None
        assert f"its unit is {name}" in (grid.placement.doubt(SHAPE, grid.affine) or "")
    tiny = np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE
    scan = write(tmp_path / "a.nii", tiny, 1, tiny, 1)
    with pytest.raises(BadData, match="spacing of 0.0008 x 0.0009 x 0.0025 mm is impo"):
        read_image(scan)


def test_a_label_map_of_an_array_has_a_header_that_all_read_alike(tmp_path):
    grid = Grid(SHAPE, turned(12))
    write_on_grid(tmp_path / "a.nii.gz", np.zeros((7, 6, 5), np.uint8), grid)
    for seen in (in_itk(tmp_path / "a.nii.gz"), in_nibabel(tmp_path / "a.nii.gz")):
        np.testing.assert_allclose(seen, grid.affine, atol=1e-4)
    header = nibabel.Nifti1Image.from_filename(tmp_path / "a.nii.gz").header
    assert header["qform_code"] == header["sform_code"] == 1
    assert header.get_xyzt_units()[0] == "mm"
