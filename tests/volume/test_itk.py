"""NRRD and MetaImage: geometry and values as SimpleITK and nibabel have them."""

import itertools
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.errors import BadData
from attunet_jax.volume import read_grid, read_labels, read_scan, write_on_grid
from attunet_jax.volume.itk import segment_values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
    import SimpleITK as sitk

ENDINGS = (".nrrd", ".mha")


def image_of(
    array_zyx, spacing=(0.7, 0.8, 2.5), origin=(-120.5, 30.25, 900.0), turn=None
):
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if turn is not None:
        image.SetDirection(np.asarray(turn, float).ravel().tolist())
    return image


def turns():
    """All 48 axis orders and directions, and one oblique grid."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[list(order)] * signs
    angle = np.deg2rad(12)
    c, s = np.cos(angle), np.sin(angle)
    yield np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_every_voxel_lies_where_itk_has_it(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1000, (5, 4, 3)).astype(np.int16)  # z, y, x
    for number, turn in enumerate(turns()):
        image = image_of(array, turn=turn)
        path = tmp_path / f"scan{ENDINGS[number % 2]}"
        sitk.WriteImage(image, str(path))
        volume = read_scan(path)
        assert volume.voxels.dtype == np.int16
        assert volume.grid.shape == image.GetSize()
        for index in [(0, 0, 0), (2, 3, 4), (1, 0, 3)]:
            x, y, z = image.TransformIndexToPhysicalPoint(index)
            world = volume.grid.affine @ [*index, 1]
            np.testing.assert_allclose(world[:3], [-x, -y, z], atol=1e-9)
            # The canonical view has the same value at the same place.
            place = np.linalg.solve(volume.affine, world)[:3]
            d, h, w = np.rint(place).astype(int)
            np.testing.assert_allclose(place, [d, h, w], atol=1e-6)
            assert volume.voxels[d, h, w] == image.GetPixel(index)
        # As NIfTI, by ITK's own conversion, it is the same volume.
        sitk.WriteImage(image, str(tmp_path / "same.nii.gz"))
        same = read_scan(tmp_path / "same.nii.gz")
        np.testing.assert_array_equal(volume.voxels, same.voxels)
        np.testing.assert_allclose(volume.affine, same.affine, atol=1e-4)
        # Label maps lie on the scan, in ITK and in nibabel.
        labels = (volume.voxels > 0).astype(np.uint8)
        for ending in (*ENDINGS, ".nii.gz"):
            out = tmp_path / "out" / f"labels{ending}"
            write_on_grid(out, labels, volume.grid)
            found = sitk.ReadImage(str(out))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(found), array > 0)
            for what in ("GetOrigin", "GetSpacing", "GetDirection"):
                expected = getattr(image, what)()
                np.testing.assert_allclose(getattr(found, what)(), expected, atol=1e-4)
        affine = nib.load(out).affine  # pyright: ignore
        np.testing.assert_allclose(affine, volume.grid.affine, atol=1e-4)
        assert not [*(tmp_path / "out").glob(".*")]


def test_values_are_those_of_the_file_in_every_type(tmp_path):
    values = np.array([[[-1024, 0], [1, 3071]]])
    for dtype, read in [
        ("int8", "int16"),
        ("uint16", "int16"),
        ("int32", "int16"),
        ("float32", "int16"),
        ("float64", "int16"),
    ]:
        stored = (np.abs(values) % 100 if dtype == "int8" else np.abs(values)).astype(
            dtype
        )
        for ending, packed in itertools.product(ENDINGS, (True, False)):
            path = tmp_path / f"{dtype}{ending}"
            sitk.WriteImage(image_of(stored), str(path), useCompression=packed)
            volume = read_scan(path)
            assert volume.voxels.dtype == read
            assert sorted(volume.voxels.ravel()) == sorted(stored.ravel())
            grid, fits = read_grid(path)
            assert grid.voxels.shape == volume.voxels.shape
            assert fits == (dtype in ("int8", "int16"))
    path = tmp_path / "half.nrrd"
    sitk.WriteImage(image_of(values + 0.5), str(path))
    assert read_scan(path).voxels.dtype == np.float32
    sitk.WriteImage(image_of(np.array([[[0, 300.0]]])), str(path))
    assert read_labels(path).voxels.dtype == np.uint16


def refusal(read, path):
    with pytest.raises(BadData) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_what_is_no_scan_or_label_map_is_one_line(tmp_path):
    array = np.zeros((3, 4, 5), np.int16)
    for ending in ENDINGS:
        whole = tmp_path / f"whole{ending}"
        sitk.WriteImage(image_of(array), str(whole), useCompression=False)
        content = whole.read_bytes()
        bad = tmp_path / f"bad{ending}"
        for damaged, said in [
            (b"", "content is not"),
            (b"hello", "content is not"),
            (content[:-40], "truncated"),
            (content[:60], ""),
            (content.replace(b"3", b"9999999", 1), ""),
        ]:
            bad.write_bytes(damaged)
            assert said in refusal(read_scan, bad)
        for image, said in [
            (sitk.GetImageFromArray(np.zeros((4, 5), np.int16)), "2-D image"),
            (
                sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.int16), False),
                "4-D image",
            ),
            (image_of(array, spacing=(1, 1, 1e-5)), "is impossible"),
            (image_of(np.full((3, 4, 5), np.nan)), "60 voxels are NaN"),
        ]:
            sitk.WriteImage(image, str(bad))
            assert said in refusal(read_scan, bad)
        vector = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
        sitk.WriteImage(vector, str(bad))
        assert "2 numbers a voxel" in refusal(read_scan, bad)
        for value, said in [
            (0.5, "0.5 is not a whole number"),
            (-1.0, "-1 is outside"),
        ]:
            sitk.WriteImage(image_of(np.full((3, 4, 5), value)), str(bad))
            assert said in refusal(read_labels, bad)
        assert "no such file" in refusal(read_scan, tmp_path / f"gone{ending}")


def test_voxels_in_another_file_are_not_followed(tmp_path):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(120))
    nrrd = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        "sizes: 5 4 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\n"
        f"endian: little\nspace origin: (0,0,0)\ndata file: {secret}\n\n"
    )
    mha = (
        "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\n"
        f"ElementSpacing = 1 1 1\nElementDataFile = {secret}\n"
    )
    for name, text in [("a.nrrd", nrrd), ("b.mha", mha)]:
        (tmp_path / name).write_text(text)
        assert "another file" in refusal(read_scan, tmp_path / name)


def test_segments_of_slicer_are_a_label_map_with_names_unless_they_overlap(tmp_path):
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 1:3, 1:3] = 2
    image = image_of(array)
    for number, (name, value) in enumerate([("spleen", 2), ("left kidney", 5)]):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", "0")
    path = tmp_path / "a.seg.nrrd"
    sitk.WriteImage(image, str(path))
    assert int((read_labels(path).voxels == 2).sum()) == 4
    assert segment_values(path) == {"spleen": 2, "left kidney": 5}
    layers = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
    sitk.WriteImage(layers, str(path))
    assert "segments overlap (2 layers)" in refusal(read_labels, path)


def test_without_simpleitk_a_line_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(image_of(np.zeros((3, 4, 5), np.int16)), str(path))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert "pip install SimpleITK" in refusal(read_scan, path)
