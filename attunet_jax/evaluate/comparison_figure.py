"""Draws Figure 3b of the paper: truth, two networks, and what the first one missed.

The colours are of Okabe and Ito's, which people with any colour vision tell apart; what
was missed is hatched and has an arrow as well.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from attunet_jax.evaluate import slices
from attunet_jax.evaluate.panels import (
    FigureCase,
    grid_of_panels,
    name_panel,
    name_row,
    panel_names,
)

_TRUTH, _PREDICTION, _MISSED = "#56b4e9", "#f0e442", "#d55e00"


def comparison_figure(
    case: FigureCase, predictions: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Figure 3b: truth and two predictions, and what the first one missed.

    `predictions` has name -> mask of the organ: of the U-Net first, then of the network
    with gates. Drawn are the slice with most of the organ, and the one in which the
    first network missed most.
    """
    (baseline, first), (other, second) = predictions.items()
    missed = {name: case.truth & ~mask for name, mask in predictions.items()}
    rows = [slices.largest_slice(case.truth, "axial")]
    marked = f"The slice with most of the organ ({rows[0]})."
    if not missed[baseline].any():
        marked += f" {baseline} missed no voxel of it."
    elif (worst := slices.largest_slice(missed[baseline], "axial")) != rows[0]:
        rows.append(worst)
        marked = (
            f"Upper row: the slice with most of the organ ({rows[0]}); lower row: the "
            f"slice in which {baseline} missed most ({worst}), chosen for that."
        )
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    organ_ml = case.truth.sum() * voxel_ml
    said = "; ".join(
        f"{name}: Dice {_dice(case.truth, mask):.2f}, missed "
        f"{missed[name].sum() * voxel_ml:.1f} ml of {organ_ml:.1f} ml"
        for name, mask in predictions.items()
    )
    text = (
        f"Figure 3b. Case {case.case_id}, {title}: {case.organ} in axial slices. From "
        f"left to right CT, truth, {baseline}, {other}. Voxels of the truth that a "
        "network missed are hatched; an arrow points at the largest region of them. "
        f"{marked} The whole case: {said}. {slices.SIDES_TEXT.split(', S ')[0]}."
    )
    box = _box(case.truth | first | second, case.spacing_mm, margin_mm=25)
    cut = FigureCase(
        case.case_id,
        case.organ,
        case.image_hu[:, *box],
        case.truth[:, *box],
        case.spacing_mm,
        case.affine,
    )
    figure, grid = grid_of_panels(cut, ["axial"] * len(rows), 4, text, 2.6, legend=True)
    letter = panel_names()
    for row, index in enumerate(rows):
        for column, ax in enumerate(grid[row]):
            slices.show_ct(ax, cut.image_hu[index], "axial", case.spacing_mm)
            name_panel(ax, next(letter))
            truth = cut.truth[index]
            if column == 1:
                _fill(ax, truth, _TRUTH, case.spacing_mm)
            if column >= 2:
                name = (baseline, other)[column - 2]
                _fill(ax, predictions[name][index][*box], _PREDICTION, case.spacing_mm)
                slices.outline(
                    *(ax, truth, "axial", case.spacing_mm),
                    colors=[_TRUTH],
                    linewidths=1.2,
                )
                _mark(ax, missed[name][index][*box], case.spacing_mm)
            if row == 0:
                names = ("CT", "truth", baseline, other)
                ax.set_title(names[column], fontsize=9)
        slices.letters(grid[row, 0], "axial", 7)
        name_row(grid[row, 0], f"slice {index}")
    figure.subfigs[0].legend(
        handles=[
            Patch(color=_TRUTH, alpha=0.6, label=f"truth ({case.organ})"),
            Patch(color=_PREDICTION, alpha=0.6, label="prediction"),
            Patch(fc="none", ec=_MISSED, hatch="////", label="missed"),
            Line2D([], [], color=_TRUTH, label="outline of the truth"),
        ],
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        facecolor="#303030",
        labelcolor="white",
    )
    return figure


def _fill(ax: Axes, mask: np.ndarray, colour: str, spacing_mm: np.ndarray) -> None:
    if mask.any():
        _contourf(ax, mask, spacing_mm, colors=[colour], alpha=0.55)


def _mark(ax: Axes, mask: np.ndarray, spacing_mm: np.ndarray) -> None:
    """Hatches a mask and points an arrow at its largest region."""
    from scipy import ndimage  # late: few programs draw these

    if not mask.any():
        return
    _contourf(ax, mask, spacing_mm, colors="none", hatches=["/////"])
    slices.outline(ax, mask, "axial", spacing_mm, colors=[_MISSED], linewidths=1.0)
    labelled = np.asarray(ndimage.label(mask)[0])  # pyright: ignore
    largest = np.bincount(labelled.ravel())[1:].argmax() + 1
    row, column = np.argwhere(labelled == largest).mean(0)
    pixel = slices.pixel_mm(spacing_mm, "axial")
    y, x = (np.array([row, column]) + 0.5) * pixel
    # From the side on which there is more room.
    away = 18 if column > mask.shape[1] / 2 else -18
    arrow = ax.annotate(
        *("", (x, y), (x + away, y - 14)),
        arrowprops={
            "arrowstyle": "-|>",
            "color": _MISSED,
            "lw": 2,
            "mutation_scale": 14,
            "path_effects": [withStroke(linewidth=4, foreground="white")],
        },
    )
    arrow.set_zorder(5)


def _contourf(ax: Axes, mask: np.ndarray, spacing_mm: np.ndarray, **style: Any) -> None:
    padded = np.pad(mask, 1).astype(float)
    y, x = (
        (np.arange(n) - 0.5) * mm
        for n, mm in zip(
            padded.shape, slices.pixel_mm(spacing_mm, "axial"), strict=True
        )
    )
    drawn = ax.contourf(x, y, padded, levels=[0.5, 1.5], **style)
    if style.get("hatches"):
        drawn.set_edgecolor(_MISSED)
        drawn.set_linewidth(0)


def _dice(truth: np.ndarray, mask: np.ndarray) -> float:
    total = truth.sum() + mask.sum()
    return 2 * float((truth & mask).sum()) / float(total) if total else 1.0


def _box(
    mask: np.ndarray, spacing_mm: np.ndarray, margin_mm: float
) -> tuple[slice, slice]:
    """The rows and columns around a mask `[D, H, W]`, with a margin."""
    box = []
    for axis in (1, 2):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        size = mask.shape[axis]
        margin = int(np.ceil(margin_mm / spacing_mm[axis]))
        first, last = (filled[0], filled[-1]) if filled.size else (0, size - 1)
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, size)))
    return box[0], box[1]
