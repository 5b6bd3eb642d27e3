"""What verify measures of a case and says of it: numbers and words by hand."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from attunet_jax.volume import Grid, Volume, align_by_index, canonical
from data_prep.align import mirrored_axes
from data_prep.read import label_counts
from data_prep.verification import pictures
from data_prep.verification.examine import printable
from data_prep.verification.findings import across_cases, image_findings, label_findings
from data_prep.verification.measure import (
    content,
    measure_image,
    measure_labels,
    merged,
)
from data_prep.verification.pictures import encode_png
from data_prep.verification.repair import compare, overlap, suggested_fix

# A file whose axes run to the left, the back and the head: W, H, D of 2, 3 and 5 mm.
LPS = np.diag([-2.0, -3.0, 5.0, 1.0])


def scan(array_whd, affine=LPS, path="scan.nii") -> Volume:
    """As if read from a file with that array and affine."""
    array = np.asarray(array_whd)
    voxels, view = canonical(array, np.asarray(affine, float))
    grid = Grid(array.shape, np.asarray(affine, float))  # pyright: ignore
    return Volume(np.ascontiguousarray(voxels), view, grid, path)


def box(shape, *slices, value=1, affine=LPS) -> Volume:
    """Labels [W, H, D] with a box of one value in them."""
    array = np.zeros(shape, np.uint8)
    array[slices] = value
    return scan(array, affine, "labels.nii")


def moved(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    affine = LPS.copy()
    affine[:3, 3] += (x, y, z)
    return affine


def kinds(problems) -> list[str]:
    return [row["kind"] for row in problems]


def test_shape_spacing_and_axes_are_those_of_the_scan():
    report = measure_image(scan(np.arange(24, dtype=np.int16).reshape(2, 3, 4)))
    assert report["shape"] == [4, 3, 2] and report["file_shape"] == [2, 3, 4]
    assert report["spacing_mm"] == [5, 3, 2]
    assert report["orientation"] == "LPS"
    assert report["skew_degrees"] == 0 and report["oblique_degrees"] == 0


def test_hu_are_counted_not_sampled():
    for dtype in [np.int16, np.float32]:
        # Voxels 0, 1, ... 999: half a percent are the 5 lowest, 99.5 % the 995 lowest.
        array = np.arange(1000, dtype=dtype).reshape(10, 10, 10)
        hu = measure_image(scan(array))["hu"]
        assert (hu["min"], hu["max"], hu["mean"]) == (0, 999, 499.5)
        assert hu["p0_5"] == pytest.approx(4, abs=0.02)
        assert hu["p99_5"] == pytest.approx(994, abs=0.02)
        assert hu["whole"] == (dtype == np.int16)


def test_a_tilted_gantry_is_measured_and_a_turned_scan_is_not_called_so():
    tilted = LPS.copy()
    tilted[1, 2] = 5 * np.tan(np.radians(12))  # slices slide to the front as they rise
    report = measure_image(scan(np.zeros((3, 3, 3), np.int16), tilted))
    assert report["skew_degrees"] == 12
    assert "skewed" in kinds(image_findings(report))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    report = measure_image(scan(np.zeros((3, 3, 3), np.int16), turn @ LPS))
    assert report["skew_degrees"] == 0
    assert report["oblique_degrees"] == pytest.approx(np.degrees(0.2), abs=0.01)
    assert "skewed" not in kinds(image_findings(report))


def test_content_is_that_of_the_voxels_whatever_the_file_is_like():
    array = np.random.default_rng(0).integers(-9, 9, (4, 5, 6)).astype(np.int16)
    first = measure_image(scan(array))
    other_axes = np.diag([2.0, -3.0, 5.0, 1.0])  # to the right, and stored that way
    same = measure_image(scan(array[::-1], other_axes))
    mirrored = measure_image(scan(array[::-1]))
    assert same["content"] == first["content"] != mirrored["content"]
    assert first["content_unordered"] == mirrored["content_unordered"]
    turned = measure_image(scan(array.transpose(2, 0, 1)))
    assert first["content_unordered"] == turned["content_unordered"]
    other = measure_image(scan(array + np.int16(1)))
    assert other["content_unordered"] != first["content_unordered"]
    labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert content(labels) == content(labels.astype(np.uint16))


def test_organs_have_voxels_ml_faces_and_mean_hu():
    labels = box((8, 9, 10), slice(0, 2), slice(3, 6), slice(7, 10))
    labels.voxels[5, 4, 4] = 7  # D, H, W
    hu = np.full(labels.voxels.shape, -90, np.int16)
    hu[labels.voxels == 1] = 40
    hu[9, 3, 0] = 58
    image = replace(labels, voxels=hu)
    measured = measure_labels(labels, label_counts(labels.voxels), image)
    # 2 x 3 x 3 voxels of 30 cubic mm; the last slices, the first columns (the right).
    assert measured[1] == {
        "voxels": 18,
        "ml": 0.54,
        "touches": ["head", "right"],
        "mean_hu": 41.0,
    }
    assert measured[7] == {"voxels": 1, "ml": 0.03, "touches": [], "mean_hu": -90.0}
    both = merged([measured[7], measured[1]])
    assert both["voxels"] == 19 and both["ml"] == 0.57
    assert both["touches"] == ["head", "right"]
    assert both["mean_hu"] == pytest.approx((18 * 41 - 90) / 19, abs=0.05)
    none = {"voxels": 0, "ml": 0, "touches": [], "mean_hu": None}
    assert merged([]) == none
    assert measure_labels(labels, label_counts(labels.voxels), None)[1]["ml"] == 0.54


def test_each_face_of_the_scan_has_its_name():
    for face, index in [
        ("feet", np.s_[0, 4, 4]),
        ("head", np.s_[-1, 4, 4]),
        ("front", np.s_[4, 0, 4]),
        ("back", np.s_[4, -1, 4]),
        ("right", np.s_[4, 4, 0]),
        ("left", np.s_[4, 4, -1]),
    ]:
        labels = scan(np.zeros((9, 9, 9), np.uint8))
        labels.voxels[index] = 1
        measured = measure_labels(labels, label_counts(labels.voxels), None)
        assert measured[1]["touches"] == [face]


def test_values_beyond_16_bits_are_told():
    array = np.linspace(-1000, 40000, 60).astype(np.float32).reshape(3, 4, 5)
    assert kinds(image_findings(measure_image(scan(array)))) == ["values_clipped"]


def test_what_is_odd_about_organs_is_one_line_a_kind():
    fine = {"voxels": 9, "ml": 1, "touches": [], "mean_hu": 60.0}
    none = {"voxels": 0, "ml": 0, "touches": [], "mean_hu": None}
    cut = fine | {"touches": ["feet", "left"]}
    air = fine | {"mean_hu": -800.0}
    assert label_findings({"spleen": fine}) == []
    assert label_findings({"lung_left": air, "label_4": air}) == []
    assert kinds(label_findings({"spleen": none, "kidney": none})) == ["empty_label"]
    found = label_findings({"a": fine, "b": none, "c": cut, "d": air, "e": none})
    assert kinds(found) == ["organ_missing", "touches_border", "not_tissue"]
    assert found[0]["text"] == "absent: b, e"
    assert "c (feet and left)" in found[1]["text"]
    assert "d (-800 HU)" in found[2]["text"]


def test_one_grid_needs_no_mend():
    found = compare(box((8, 9, 10)), box((8, 9, 10), affine=moved(x=0.05)))
    assert found == {
        "max_corner_distance_mm": 0.05,
        "difference": None,
        "suggested_fix": None,
    }


def test_a_header_that_is_wrong_is_to_be_copied_from_the_image():
    image, labels = box((8, 9, 10)), box((8, 9, 10), affine=moved(x=3, z=-4))
    found = compare(image, labels)
    assert found["max_corner_distance_mm"] == 5
    assert "corners lie up to 5 mm apart" in found["difference"]
    assert "only the origin differs, by 3 x 0 x -4 mm" in found["suggested_fix"]
    assert "copy the image's qform, sform" in found["suggested_fix"]
    assert "fit index by index" in suggested_fix(image, labels, ())
    assert "flip D and W" in suggested_fix(image, labels, ("D", "W"))
    wider = box((8, 9, 10), affine=np.diag([-2.0, -3.0, 6.0, 1.0]))
    assert suggested_fix(image, wider).startswith("the spacings differ")
    flipped = box((8, 9, 10), affine=np.diag([2.0, -3.0, 5.0, 1.0]))
    assert suggested_fix(image, flipped).startswith("the directions of axes differ")


def test_labels_are_laid_on_the_image_as_its_affine_in_their_header_would():
    image = box((8, 9, 10), slice(1, 3), slice(2, 4), slice(3, 5))
    to_the_right = np.diag([2.0, -3.0, 5.0, 1.0])
    labels = box((8, 9, 10), slice(1, 3), slice(2, 4), slice(3, 5), affine=to_the_right)
    assert not np.array_equal(labels.voxels, image.voxels)
    laid = align_by_index(image, labels)
    np.testing.assert_array_equal(laid.voxels, image.voxels)
    np.testing.assert_array_equal(laid.affine, image.affine)
    other = box((8, 9, 11))
    assert align_by_index(image, other) is other


def test_a_label_map_cut_out_of_its_scan_is_to_be_padded():
    # From file index 2, 1, 3: -2 mm, -3 mm and 5 mm an index. 3, 3 and 4 voxels more.
    labels = box((3, 5, 3), affine=moved(x=-4, y=-3, z=15))
    said = suggested_fix(box((8, 9, 10)), labels)
    assert "100% of the label map lies inside" in said
    assert "3 x 1 x 2 voxels before and 4 x 3 x 3 after" in said


def test_a_label_map_of_another_spacing_is_to_be_resampled():
    labels = box((4, 9, 10), affine=np.diag([-4.0, -3.0, 5.0, 1.0]))
    assert "resample the label map onto the image's grid" in suggested_fix(
        box((8, 9, 10)), labels
    )
    half = box((8, 9, 10), affine=moved(z=25))
    assert overlap(box((8, 9, 10)), half) == pytest.approx(0.5)


def test_a_label_map_of_another_place_is_of_another_scan():
    labels = box((8, 9, 4), affine=moved(z=150))  # the image ends at 47.5, it at 147.5
    assert "100 mm apart" in suggested_fix(box((8, 9, 10)), labels)


def test_a_label_map_with_its_axes_misnamed_is_told():
    labels = box((10, 9, 8))
    assert "named wrongly" in suggested_fix(box((8, 9, 10)), labels)


def test_a_mirrored_label_map_is_seen_by_the_hu_under_it():
    organ = np.zeros((20, 30, 40), np.uint8)
    organ[3:9, 5:14, 8:20] = 4
    organ[12:, 20:] = 7  # of no organ that is soft tissue
    image = np.where(organ == 4, 60, -100).astype(np.int16)
    volume = Volume(image, np.eye(4), Grid((20, 30, 40), np.eye(4)), "scan.nii")
    organs = {"spleen": (4,), "lung": (7,)}
    assert mirrored_axes(volume, organ, organs) == ()
    assert mirrored_axes(volume, organ[::-1], organs) == ("D",)
    assert mirrored_axes(volume, organ[:, ::-1, ::-1], organs) == ("H", "W")
    assert mirrored_axes(volume, organ * 0, organs) is None
    flat = replace(volume, voxels=np.full_like(image, 40))
    assert mirrored_axes(flat, organ, organs) is None


def report_of(name, array, spacing=(5, 3, 2), labels=None, path=None) -> dict:
    measured = measure_image(scan(array))
    return measured | {
        "case_id": name,
        "image": path or f"/nowhere/{name}.nii",
        "spacing_mm": list(spacing),
        "label_content": labels,
    }


def test_the_same_scan_in_two_cases_is_told_at_both():
    array = np.random.default_rng(1).integers(-9, 9, (4, 5, 6)).astype(np.int16)
    unlike = array + np.int16(1)
    found = across_cases(
        [
            report_of("a", array),
            report_of("b", unlike),
            report_of("c", array),
            report_of("d", array[:, ::-1]),
        ]
    )
    assert [kinds(rows) for rows in found] == [
        ["duplicate_scan"] * 2,
        [],
        ["duplicate_scan"] * 2,
        ["duplicate_scan"],
    ]
    assert found[0][0]["text"].startswith("the same voxels as c")
    assert found[0][1]["text"].startswith("a mirrored or turned copy of d")
    assert found[3][0]["text"].startswith("a mirrored or turned copy of a, c")


def test_the_same_file_under_two_names_is_the_same_case_twice(tmp_path):
    (tmp_path / "a.nii").write_text("")
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.nii")
    array = np.zeros((2, 2, 2), np.int16)
    found = across_cases(
        [report_of(n, array, path=str(tmp_path / f"{n}.nii")) for n in "ab"]
    )
    assert "the same case twice" in found[0][0]["text"]


def test_one_label_map_for_two_scans_is_told():
    first, second = np.zeros((2, 2, 2), np.int16), np.ones((2, 2, 2), np.int16)
    found = across_cases(
        [report_of("a", first, labels="x"), report_of("b", second, labels="x")]
    )
    assert [kinds(rows) for rows in found] == [["duplicate_label"]] * 2
    again = across_cases(
        [report_of("a", first, labels="x"), report_of("b", first, labels="x")]
    )
    assert [kinds(rows) for rows in again] == [["duplicate_scan"]] * 2


def test_a_spacing_unlike_all_others_is_told():
    rows = [
        report_of(str(i), np.full((2, 2, 2), i, np.int16), (2.5 + i / 10, 0.8, 0.8))
        for i in range(5)
    ]
    odd = report_of("odd", np.full((2, 2, 2), 9, np.int16), (2.5, 0.8, 2.4))
    found = across_cases([*rows, odd])
    assert [kinds(r) for r in found] == [[]] * 5 + [["unusual_spacing"]]
    assert "the median of all is" in found[-1][0]["text"]
    assert across_cases([rows[0], odd]) == [[], []]  # too few to tell
    impossible = across_cases([odd | {"spacing_mm": [25, 0.8, 0.8]}])
    assert kinds(impossible[0]) == ["unusual_spacing"]


def test_a_palette_picture_reads_back_in_another_program():
    indices = np.random.default_rng(2).integers(0, 5, (7, 11)).astype(np.uint8)
    palette = np.array([[0, 0, 0], [255, 176, 0], [1, 2, 3], [9, 8, 7], [255] * 3])
    seen = imread(io.BytesIO(encode_png(indices, palette)), format="png")
    np.testing.assert_array_equal(np.rint(seen[..., :3] * 255), palette[indices])


def shown(picture) -> np.ndarray:
    """RGB as 0..255 [H, W, 3]."""
    seen = imread(io.BytesIO(picture.png), format="png")[..., :3]
    assert seen.shape[:2] == (picture.height, picture.width)
    return np.rint(seen * 255).astype(int)


def test_pictures_go_through_the_labels_and_keep_the_proportions():
    labels = box((40, 50, 30), slice(4, 9), slice(10, 21), slice(20, 25))
    image = replace(labels, voxels=np.full((30, 50, 40), -1000, np.int16))
    image.voxels[29, 49, 39] = 240  # head, back, left
    found = pictures.case_pictures(image, labels, {1: "#ffb000"})
    # Slices of 5 mm: 20 to 24; rows of 3 mm: 10 to 20; columns of 2 mm: 4 to 8.
    assert [(p.plane, p.index, p.count) for p in found] == [
        ("axial", 22, 30),
        ("coronal", 15, 50),
        ("sagittal", 6, 40),
    ]
    # 150 mm front to back are 288 pixels, so 80 mm across are 153.6, 150 mm up 288.
    assert [(p.height, p.width) for p in found] == [(288, 154), (288, 154), (288, 288)]
    orange = [np.argwhere((shown(p) == (255, 176, 0)).all(-1)) for p in found]
    # The box's rows and columns in mm, at 1.92 pixels a mm; the head is up.
    for place, rows_mm, columns_mm in zip(
        orange,
        [(30, 63), (150 - 125, 150 - 100), (150 - 125, 150 - 100)],
        [(8, 18), (8, 18), (30, 63)],
        strict=True,
    ):
        edges = [*place.min(0), *(place.max(0) + 1)]
        wanted = np.array([rows_mm[0], columns_mm[0], rows_mm[1], columns_mm[1]]) * 1.92
        np.testing.assert_allclose(edges, wanted, atol=1.01)


def test_without_labels_the_middle_is_shown():
    image = scan(np.full((40, 50, 31), -1000, np.int16))
    found = pictures.case_pictures(image, None, {})
    assert [(p.index, p.count) for p in found] == [(15, 31), (24, 50), (19, 40)]
    assert all((shown(p) == 0).all() for p in found)


def test_labels_of_another_shape_are_drawn_where_their_header_says():
    image = scan(np.full((40, 50, 30), -1000, np.int16))
    cut_out = box(
        (10, 15, 8), slice(None), slice(None), slice(None), affine=moved(-8, -30, 100)
    )
    found = pictures.case_pictures(image, cut_out, {1: "#ffb000"})
    # Voxels 20 to 27 of D, 10 to 24 of H, 4 to 13 of W; the centres lie between two.
    assert [p.index for p in found] == [23, 17, 8]
    assert (shown(found[0]) == (255, 176, 0)).all(-1).any()


def test_pictures_of_noise_stay_small():
    noise = np.random.default_rng(3).integers(-160, 240, (60, 256, 256))
    found = pictures.case_pictures(scan(noise.astype(np.int16), np.eye(4)), None, {})
    assert sum(len(p.png) for p in found) <= 60_000


def test_every_organ_has_a_colour_of_its_own():
    colours = [pictures.colour(number) for number in range(40)]
    assert len(set(colours)) == 40
    assert all(len(c) == 7 and int(c[1:], 16) >= 0 for c in colours)


def test_text_from_files_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\nc\udcff é") == "a\\x1b[2Jb c\\udcff é"
