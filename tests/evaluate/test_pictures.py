"""Pictures: which way up, in proportion, whole, whatever is missing."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from attunet_jax.evaluate.pictures import COLOURS, learning_curve_png, overlay_png
from attunet_jax.evaluate.slices import letters

SHAPE, SPACING = (20, 40, 30), (3.0, 1.0, 2.0)


def cube(label: int, *centre: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[tuple(slice(c - 4, c + 5) for c in centre)] = label
    return labels


def drawn(path, colour: str, tolerance: int = 40) -> np.ndarray:
    """Rows and columns of the pixels of one colour in the slice: int [n, 2]."""
    pixels = matplotlib.image.imread(path)[..., :3] * 255
    # The slice is black but for the organs; title and legend are not.
    rows = (pixels.max(-1) < 30).mean(1) > 0.3
    pixels = pixels[np.nonzero(rows)[0].min() : np.nonzero(rows)[0].max() + 1]
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere(np.abs(pixels - rgb).max(-1) < tolerance)


def centre(places: np.ndarray) -> np.ndarray:
    return (places.min(axis=0) + places.max(axis=0)) / 2


@pytest.mark.parametrize(
    ("panel", "first", "second"),
    [
        # Front is up in axial slices, the patient's right is on the left.
        ("axial", (10, 8, 8), (10, 30, 20)),
        # The head is up.
        ("coronal", (15, 20, 8), (5, 20, 20)),
        ("sagittal", (15, 8, 15), (5, 30, 15)),
    ],
)
def test_the_first_organ_is_above_and_left_of_the_second(
    tmp_path, panel, first, second
):
    organs = {"first": 1, "second": 2}
    truth = np.maximum(cube(1, *first), cube(2, *second))
    # 70 HU is the middle of the window: grey in a black picture.
    overlay_png(
        tmp_path / "overlay.png",
        np.where(truth == 1, 70, -1000),
        truth,
        None,
        SPACING,
        organs,
        "title",
        organ="first",
        panels=[panel],
    )
    one, other = (
        centre(drawn(tmp_path / "overlay.png", colour)) for colour in COLOURS[:2]
    )
    assert (one < other - 20).all()
    grey = centre(drawn(tmp_path / "overlay.png", "#808080", 8))
    assert grey == pytest.approx(one, abs=8)


def test_pictures_are_in_proportion(tmp_path):
    truth = np.zeros(SHAPE, np.uint8)
    truth[5:15, 10:30, 5:25] = 1  # 30 x 20 x 40 mm
    sizes = {}
    for panel in ("axial", "coronal", "sagittal"):
        overlay_png(
            tmp_path / f"{panel}.png",
            np.full(SHAPE, -1000),
            truth,
            None,
            SPACING,
            {"pancreas": 1},
            "",
            panels=[panel],
        )
        outline = drawn(tmp_path / f"{panel}.png", COLOURS[0])
        height, width = np.ptp(outline, axis=0)
        sizes[panel] = height / width
    assert sizes == {
        "axial": pytest.approx(20 / 40, rel=0.05),
        "coronal": pytest.approx(30 / 40, rel=0.05),
        "sagittal": pytest.approx(30 / 20, rel=0.05),
    }


@pytest.mark.parametrize("truth", [None, cube(1, 10, 20, 15), cube(2, 10, 20, 15)])
@pytest.mark.parametrize("prediction", [None, np.zeros(SHAPE, np.uint8)])
def test_a_picture_comes_out_whatever_is_missing(tmp_path, truth, prediction):
    overlay_png(
        tmp_path / "overlay.png",
        np.zeros(SHAPE, np.int16),
        truth,
        prediction,
        SPACING,
        {"spleen": 1, "pancreas": 2},
        "title",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.png"]
    assert (tmp_path / "overlay.png").read_bytes()[:4] == b"\x89PNG"


def test_the_prediction_is_drawn_on_top_and_paler(tmp_path):
    path = tmp_path / "overlay.png"
    labels = cube(1, 10, 20, 15)
    args = (SPACING, {"pancreas": 1}, "")
    overlay_png(path, np.full(SHAPE, -1000), labels, None, *args)
    alone = len(drawn(path, COLOURS[0]))
    overlay_png(path, np.full(SHAPE, -1000), labels, labels, *args)
    assert len(drawn(path, COLOURS[0])) < 0.8 * alone


def test_a_scan_is_smooth_between_its_voxels(tmp_path):
    """Two voxels a side, 0 and 140 HU: blocks would have two greys of the window."""
    image = np.full((4, 4, 4), -100)
    image[:, :, 2:] = 240
    path = tmp_path / "overlay.png"
    overlay_png(path, image, None, None, (8, 8, 8), {"a": 1}, "", panels=["axial"])
    pixels = matplotlib.image.imread(path)[..., :3]
    grey = pixels[np.ptp(pixels, axis=-1) == 0][:, 0]
    row = pixels[pixels.shape[0] // 3, :, 0]
    assert len(np.unique(grey)) > 50 and len(np.unique(row)) > 30


def test_each_edge_of_a_slice_names_the_patients_side_that_lies_there():
    expected = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
    for plane, (left, right, top, bottom) in expected.items():
        ax = Figure().subplots()
        letters(ax, plane)
        at = {text.get_text(): text.get_position() for text in ax.texts}
        assert at[left][0] < 0.1 and at[right][0] > 0.9, plane
        assert at[bottom][1] < 0.1 and at[top][1] > 0.9, plane


def test_label_maps_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="prediction is"):
        overlay_png(
            tmp_path / "overlay.png",
            np.full(SHAPE, -1000),
            None,
            np.zeros((2, 2, 2), np.uint8),
            SPACING,
            {"spleen": 1},
            "",
        )
    assert not list(tmp_path.iterdir())


def test_learning_curves_with_and_without_held_out_cases(tmp_path):
    rows = [
        {"step": 20, "loss": 0.9, "seconds_per_step": 1.0},
        {"step": 40, "loss": 0.8, "seconds_per_step": 1.0},
        {"step": 40, "held_out_dice": 0.3, "held_out_spleen": 0.3},
    ]
    shapes = []
    for name, some in (("both", rows), ("loss", rows[:2]), ("none", [])):
        learning_curve_png(tmp_path / f"{name}.png", some)
        shapes.append(matplotlib.image.imread(tmp_path / f"{name}.png").shape)
    assert shapes[0][1] == 2 * shapes[1][1] and shapes[1] == shapes[2]
    assert len(list(tmp_path.iterdir())) == 3
