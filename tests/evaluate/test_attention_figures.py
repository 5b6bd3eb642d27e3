"""Figures 3a, 3b and 4: the panels hold what they name, captions say the numbers."""

import numpy as np
import pytest
from matplotlib.text import Annotation

from attunet_jax.evaluate.attention_figures import (
    attention_figure,
    spread,
    training_figure,
)
from attunet_jax.evaluate.comparison_figure import comparison_figure
from attunet_jax.evaluate.panels import FigureCase
from attunet_jax.evaluate.slices import save
from attunet_jax.predict.attention import AttentionMap
from attunet_jax.volume import Volume

SHAPE, SPACING_MM = (8, 24, 32), (5.0, 2.0, 2.0)


@pytest.fixture
def case():
    image = np.random.default_rng(0).integers(-100, 240, SHAPE).astype(np.int16)
    truth = np.zeros(SHAPE, bool)
    truth[2:6, 8:14, 10:20] = True  # 4 x 6 x 10 voxels of 20 microlitres
    truth[4, 6:16, 8:24] = True  # most of it in slice 4: 160 voxels
    volume = Volume.of_array(image, SPACING_MM)
    spacing = np.array(SPACING_MM)
    return FigureCase("case_7", "pancreas", image, truth, spacing, volume.affine)


def maps_of(case, level):
    """Constant maps on the case's own grid: `level` and more for each sub-gate."""
    grid = Volume.of_array(case.image_hu, case.spacing_mm).grid
    return [
        AttentionMap(
            *(gate, sub_gate),
            np.full(SHAPE, level + sub_gate / 10, np.float32),
            *(case.affine, grid),
            np.full(SHAPE, 2.0 * gate, np.float32),
            np.full(SHAPE, gate + sub_gate / 10, np.float32),
        )
        for gate in (2, 3, 4)
        for sub_gate in (1, 2)
    ]


def panels(figure):
    """The pictures of all panels in their order, and the caption in one line."""
    axes = [ax for ax in figure.subfigs[0].axes if ax.images]
    caption = figure.subfigs[1].texts[0].get_text()
    return [np.asarray(ax.images[0].get_array()) for ax in axes], caption.split()


def test_figure_3a_shows_coefficients_and_features_of_the_finest_and_coarsest_gate(
    case,
):
    found, caption = panels(attention_figure(case, maps_of(case, 0.5), "a run"))
    assert len(found) == 4 * 6  # two gates, two views; CT, 2 alpha, skip, 2 gated
    for row, gate in enumerate((2, 2, 4, 4)):
        ct, *others = found[6 * row : 6 * row + 6]
        index = {0: case.image_hu[4], 1: case.image_hu[:, :, 10]}[row % 2]
        np.testing.assert_array_equal(ct, index)
        expected = (0.6, 0.7, 2 * gate, gate + 0.1, gate + 0.2)
        for values, value in zip(others, expected, strict=True):
            assert values.shape == ct.shape
            np.testing.assert_allclose(values, value, rtol=1e-6)
    text = " ".join(caption)
    assert "case_7" in text and "axial 4, sagittal 10" in text and "a run" in text
    assert "5 x 2 x 2 mm" in text  # of the maps' own affine


def test_figure_3b_says_what_both_networks_missed_and_marks_where(case):
    baseline, other = case.truth.copy(), case.truth.copy()
    baseline[2] = False  # slice 2: 60 voxels, 1.2 ml
    other[2, :, :15] = False  # half of it
    figure = comparison_figure(case, {"U-Net": baseline, "Ours": other}, "runs")
    found, caption = panels(figure)
    text = " ".join(caption)
    # 160 + 3 x 60 = 340 voxels of 0.02 ml; Dice 2 x 280 / (340 + 280).
    assert "U-Net: Dice 0.90, missed 1.2 ml of 6.8 ml" in text
    assert "Ours: Dice 0.95, missed 0.6 ml of 6.8 ml" in text
    assert "most of the organ (4)" in text and "missed most (2)" in text
    assert len(found) == 2 * 4
    axes = [ax for ax in figure.subfigs[0].axes if ax.images]
    arrows = [[t for t in ax.texts if isinstance(t, Annotation)] for ax in axes]
    assert [len(a) for a in arrows] == [0, 0, 0, 0, 0, 0, 1, 1]
    # At the middle of what is missed, in mm from the corner of the panel, which is cut
    # to the organ's box with a margin of 25 mm: the whole slice here.
    assert arrows[6][0].xy == pytest.approx((15 * 2, 11 * 2))
    assert arrows[7][0].xy == pytest.approx((12.5 * 2, 11 * 2))


def test_figure_3b_of_a_network_that_missed_nothing_says_so(case):
    masks = {"U-Net": case.truth, "Ours": case.truth}
    found, caption = panels(comparison_figure(case, masks, "runs"))
    assert len(found) == 4 and "U-Net missed no voxel of it" in " ".join(caption)


def test_figures_are_written_as_png_and_pdf_and_equal_ones_with_equal_bytes(
    case, tmp_path
):
    for name, begins in (("one.png", b"\x89PNG"), ("one.pdf", b"%PDF")):
        written = []
        for _ in range(2):
            masks = {"U-Net": case.truth, "Ours": case.truth}
            save(comparison_figure(case, masks, "runs"), tmp_path / name, dpi=40)
            written.append((tmp_path / name).read_bytes())
        assert written[0] == written[1] and written[0].startswith(begins)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.pdf", "one.png"]


def test_figure_4_shows_each_step_in_a_column(case):
    maps = {step: maps_of(case, level) for step, level in ((10, 0.2), (900, 0.7))}
    names = {10: "step 10\n(epoch 1)", 900: "step 900\n(epoch 90)"}
    figure = training_figure(case, maps, names, "a run")
    found, _ = panels(figure)
    assert len(found) == 4 * 3
    for row in range(4):
        for column, mean in ((1, 0.35), (2, 0.85)):  # of both sub-gates
            np.testing.assert_allclose(found[3 * row + column], mean, rtol=1e-6)
    titles = [ax.get_title() for ax in figure.subfigs[0].axes[:3]]
    assert titles == ["CT", *names.values()]


def test_of_many_steps_the_first_the_last_and_some_between_are_shown():
    assert spread([5, 7]) == [5, 7]
    assert spread(list(range(1, 12)), 3) == [1, 6, 11]
