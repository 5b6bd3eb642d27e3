"""What cannot be a CT is refused, what may be none is a doubt, whatever the file."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from numpy.typing import DTypeLike
from scipy import ndimage

from attunet_jax.errors import BadData
from attunet_jax.volume import Volume, checks, read_scan

RNG = np.random.default_rng(0)


def body(noise_hu: float = 12) -> np.ndarray:
    """A round body of fat and muscle with bone in air, with noise, HU as float."""
    x, y, z = np.ogrid[-1:1:60j, -1:1:50j, -1:1:40j]
    around = x**2 + y**2
    hu = np.select(
        [around > 0.8, around > 0.55, around + z**2 < 0.1], [-1000, -90, 600], 50
    )
    return hu + RNG.normal(0, noise_hu, (60, 50, 40))


def organs(count: int, size: int = 60) -> np.ndarray:
    """A label map of `count` organs: the areas closest to as many points."""
    points = RNG.integers(0, size, (count, 3))
    seeds = np.zeros((size,) * 3, int)
    seeds[tuple(points.T)] = np.arange(1, count + 1)
    place = ndimage.distance_transform_edt(
        seeds == 0, return_distances=False, return_indices=True
    )
    assert isinstance(place, np.ndarray)
    label = seeds[tuple(place)]
    x, y, z = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    label[x**2 + y**2 + z**2 > 0.8] = 0
    return label


def saved(path, array: np.ndarray, dtype: DTypeLike = np.int16, slope=None, inter=0):
    image = nibabel.Nifti1Image(array.astype(dtype), np.diag([-2.0, -2, 2, 1]))
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
        content = bytearray(image.to_bytes())
        content[112:120] = np.array([slope, inter], "<f4").tobytes()
        path.write_bytes(content)
    else:
        image.to_filename(path)
    return path


def kinds_of(path) -> tuple[str | None, list[str]]:
    volume = read_scan(path)
    found = checks.refusal(volume)
    return found and found.kind, [doubt.kind for doubt in checks.doubts(volume)]


def test_a_ct_is_taken_without_a_word(tmp_path):
    hu = body()
    padded = hu.copy()
    padded[:9] = -3024
    metal = hu.copy()
    metal[30:33, 25, 20] = 30000
    coarse = np.round((hu + 1024) / 16)
    for what, array, words in [
        ("int16", hu, {}),
        ("float", hu, {"dtype": np.float32}),
        ("padded", padded, {}),
        ("metal", metal, {}),
        ("without noise", np.round(hu / 1000) * 1000, {}),
        ("by its scaling", hu + 1024, {"dtype": np.uint16, "slope": 1, "inter": -1024}),
        ("8 bits scaled", coarse, {"dtype": np.uint8, "slope": 16, "inter": -1024}),
    ]:
        assert kinds_of(saved(tmp_path / "a.nii", array, **words)) == (None, []), what


def test_a_label_map_is_refused_in_any_type(tmp_path):
    for count in (1, 3, 40, 117, 400):
        labels = organs(count)
        for dtype in (np.uint8, np.int16, np.uint16, np.float32, np.float64):
            if count > 255 and dtype == np.uint8:
                continue
            refused, _ = kinds_of(saved(tmp_path / "a.nii", labels, dtype))
            assert refused == "label_map", (count, dtype)
    spread = organs(40) * 6  # for viewers: 0, 6, ..., 240
    ignored = organs(9)
    ignored[:4] = -1
    for labels in (spread, ignored, organs(5) + 1000, RNG.integers(0, 4, (9, 9, 9))):
        assert kinds_of(saved(tmp_path / "a.nii", labels))[0] == "label_map"


def test_a_constant_image_is_refused(tmp_path):
    for value in (0, -1000, 40, 3.5):
        array = np.full((8, 9, 10), value)
        path = saved(tmp_path / "a.nii", array, np.float32)
        assert kinds_of(path)[0] == "constant"


def test_an_8_bit_picture_is_refused_and_its_values_in_another_type_are_doubted(
    tmp_path,
):
    window = np.clip((body() + 160) * 255 / 400, 0, 255)
    wide = np.clip((body(noise_hu=8) + 1000) * 255 / 2000, 0, 255)
    for grey in (window, wide):
        path = saved(tmp_path / "a.nii", grey, np.uint8)
        assert kinds_of(path)[0] == "picture"
        for dtype in (np.int16, np.uint16, np.float32):
            path = saved(tmp_path / "a.nii", grey, dtype)
            assert kinds_of(path) == (None, ["range_255"])


def test_other_units_are_doubted(tmp_path):
    hu = body()
    padded = np.maximum(hu + 1024, 0)
    padded[:9] = -2000
    for what, array, kind in [
        ("without the offset", np.clip(hu + 1024, 0, 4095), "other_units"),
        ("the same, padded", padded, "other_units"),
        ("HU / 1000", hu / 1000, "other_units"),
        ("0 to 1", np.clip((hu + 1024) / 4095, 0, 1), "other_units"),
        ("mean 0", (hu - hu.mean()) / hu.std(), "other_units"),
        ("water is 0.19", np.maximum(0.19 * (1 + hu / 1000), 0), "other_units"),
        ("cut to a window", np.clip(hu, -160, 240), "no_air"),
    ]:
        path = saved(tmp_path / "a.nii", array, np.float32)
        assert kinds_of(path) == (None, [kind]), what


def test_the_line_says_what_the_values_are():
    for low, high, dtype, said in [
        (-1024, 1500, np.int16, None),
        (-1000.5, 900.25, np.float32, None),
        (0, 255, np.int16, "8-bit"),
        (0, 1, np.float32, "[0, 1]"),
        (-3.5, 4.5, np.float32, "normalised"),
        (-1.02, 3, np.float32, "HU / 1000"),
        (0, 3000, np.int16, "offset of 1024"),
        (24, 3000, np.int16, "offset of 1024"),
        (-160, 240, np.int16, "no air"),
    ]:
        array = np.linspace(low, high, 60).astype(dtype).reshape(3, 4, 5)
        volume = Volume.of_array(array, (1, 1, 1))
        assert checks.refusal(volume) is None
        texts = [doubt.text for doubt in checks.doubts(volume)]
        assert len(texts) == (said is not None)
        assert said is None or said in texts[0]


def test_values_count_as_they_are_stored_and_not_as_they_were_clipped(tmp_path):
    shifted = np.clip(body() + 1024, 0, 4095)
    volume = read_scan(saved(tmp_path / "a.nii", shifted))
    clipped = replace(volume, voxels=np.clip(volume.voxels, -1024, 900))
    (doubt,) = checks.doubts(clipped)
    assert f"values from 0 to {int(shifted.max())}" in doubt.text


def test_an_8_bit_dicom_series_is_refused(tmp_path, write_series):
    grey = np.clip((body() + 160) * 255 / 400, 0, 255).astype(int)
    pixels = tuple(part.astype(np.uint8).tobytes() for part in grey)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    write_series(
        tmp_path, grey, intercept=0, PixelRepresentation=0, PixelData=pixels, **bits
    )
    assert kinds_of(tmp_path)[0] == "picture"


def test_a_refusal_names_the_file_and_strict_refuses_doubts(tmp_path):
    path = saved(tmp_path / "a.nii", organs(3))
    with pytest.raises(BadData, match=f"^{path}: a label map .*give the scan itself"):
        checks.checked(read_scan(path))
    path = saved(tmp_path / "b.nii", body() + 1024)
    volume = read_scan(path)
    assert [doubt.kind for doubt in checks.checked(volume)] == ["other_units"]
    with pytest.raises(BadData, match=f"^{path}: .*--strict"):
        checks.checked(volume, strict=True)


def test_equal_doubts_of_many_cases_are_one_line():
    one, other = checks.Finding("no_air", "a"), checks.Finding("mirrored", "b")
    found = {f"case_{i}": [one] for i in range(40)} | {"last": [one, other]}
    first, second = checks.grouped(found)
    assert "41 (case_0, case_1, case_2, case_3, case_4, 36 more)" in first
    assert "1 (last)" in second and "\n" not in first + second
    assert checks.grouped({"a": []}) == []
