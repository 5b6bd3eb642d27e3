"""Draws Figures 3a and 4 of the paper for a case: what the attention gates do.

Each function returns a Matplotlib figure with its caption in it. Volumes are
`[D, H, W]` in canonical order. The colours, viridis and cividis, are told apart with
any colour vision, and in grey.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from attunet_jax.evaluate import slices
from attunet_jax.evaluate.panels import (
    FigureCase,
    grid_of_panels,
    name_panel,
    name_row,
    panel_names,
    slices_text,
)
from attunet_jax.predict.attention import AttentionMap
from attunet_jax.volume import onto_grid

_LINE: Any = {"colors": ["white"], "linewidths": 0.9, "edge": "black"}
_PANEL_INCHES = 1.9
_VIEWS = ("axial", "sagittal")
# Sub-gates that Figure 3a shows of a gate; more would be too small to see.
_MOST_SUB_GATES = 3
_MOST_STEPS = 6


def attention_figure(
    case: FigureCase, maps: Sequence[AttentionMap], title: str
) -> Figure:
    """Figure 3a: scan, coefficients, skip features before and after each sub-gate.

    `maps` with features, on the grid of the case. Axial and sagittal, of the finest and
    of the coarsest gate.
    """
    gates = sorted({one.gate for one in maps})
    gates = gates[:1] + gates[1:][-1:]
    shown = {
        gate: [one for one in maps if one.gate == gate][:_MOST_SUB_GATES]
        for gate in gates
    }
    count = len(shown[gates[0]])
    columns = 2 + 2 * count
    rows = [(gate, plane) for gate in gates for plane in _VIEWS]
    planes = [plane for _, plane in rows]
    indices = {plane: slices.largest_slice(case.truth, plane) for plane in _VIEWS}
    panels: list[list[Any]] = []
    ranges: dict[int, float] = {}
    for gate, plane in rows:
        of_gate = shown[gate]
        skip = slices.take(_on_case(of_gate[0], "skip"), plane, indices[plane])
        ranges[gate] = max(ranges.get(gate, 0), float(np.percentile(skip, 99.5)))
        alphas = [_on_case(one, "coefficients") for one in of_gate]
        gated = [_on_case(one, "gated") for one in of_gate]
        panels.append(
            [slices.take(values, plane, indices[plane]) for values in alphas]
            + [skip]
            + [slices.take(values, plane, indices[plane]) for values in gated]
        )
    text = (
        f"Figure 3a. Case {case.case_id}, {title}: what the attention gates let "
        f"through. First column: CT slices through the largest extent of {case.organ} "
        f"({slices_text(indices)}; window {slices.WINDOW_HU[0]} to "
        f"{slices.WINDOW_HU[1]} HU). Then the attention coefficients of each sub-gate, "
        "from 0 (stopped) to 1 (passed), the features of the skip connection before "
        "gating, and after gating by each sub-gate (means over channels, one scale for "
        f"each gate). {_gates_text(maps, gates)} The line is the true outline of "
        f"{case.organ}. {slices.SIDES_TEXT}."
    )
    figure, grid = grid_of_panels(case, planes, columns, text, _PANEL_INCHES)
    names = [f"sub-gate {one.sub_gate}" for one in shown[gates[0]]]
    titles = ["CT", *(f"coefficients,\n{n}" for n in names), "skip features\nbefore"]
    titles += [f"after\n{name}" for name in names]
    letter = panel_names()
    for row, (gate, plane) in enumerate(rows):
        truth = slices.take(case.truth, plane, indices[plane])
        _show_scan(grid[row, 0], case, plane, indices[plane])
        for column, values in enumerate(panels[row], start=1):
            coefficients = column <= count
            slices.show(
                grid[row, column],
                values,
                plane,
                case.spacing_mm,
                cmap="viridis" if coefficients else "cividis",
                vmin=0,
                vmax=1 if coefficients else ranges[gate],
            )
        for column, ax in enumerate(grid[row]):
            slices.outline(ax, truth, plane, case.spacing_mm, **_LINE)
            name_panel(ax, next(letter))
            if row == 0:
                ax.set_title(titles[column], fontsize=8)
        name_row(grid[row, 0], f"gate {gate}, {plane}")
    for first, gate in enumerate(gates):
        of_gate = grid[2 * first : 2 * first + 2]
        _colourbar(figure, of_gate[:, 1 : 1 + count], "viridis", 1, "coefficient")
        top = ranges[gate]
        _colourbar(figure, of_gate[:, 1 + count :], "cividis", top, "mean activation")
    return figure


def _show_scan(ax: Axes, case: FigureCase, plane: str, index: int) -> None:
    """The first panel of a row: the CT slice, with letters for the patient's sides."""
    ct = slices.take(case.image_hu, plane, index)
    slices.show_ct(ax, ct, plane, case.spacing_mm)
    slices.letters(ax, plane, 6)


def training_figure(
    case: FigureCase,
    maps_by_step: Mapping[int, Sequence[AttentionMap]],
    names: Mapping[int, str],
    title: str,
) -> Figure:
    """Figure 4: the coefficients of the finest and the coarsest gate as training goes.

    `names` has what stands above each step, such as "step 100 (epoch 7)".
    """
    first = next(iter(maps_by_step.values()))
    gates = sorted({one.gate for one in first})
    gates = gates[:1] + gates[1:][-1:]
    several = max(one.sub_gate for one in first) > 1
    rows = [(gate, plane) for gate in gates for plane in _VIEWS]
    planes = [plane for _, plane in rows]
    indices = {plane: slices.largest_slice(case.truth, plane) for plane in _VIEWS}
    mean = " (mean of the sub-gates)" if several else ""
    text = (
        f"Figure 4. Case {case.case_id}, {title}: attention coefficients{mean} as "
        "training goes, from 0 (stopped) to 1 (passed), in the slices that show most "
        f"of {case.organ} ({slices_text(indices)}). {_gates_text(first, gates)} The "
        f"line is the true outline of {case.organ}. {slices.SIDES_TEXT}."
    )
    columns = 1 + len(maps_by_step)
    figure, grid = grid_of_panels(case, planes, columns, text, _PANEL_INCHES)
    letter = panel_names()
    for row, (gate, plane) in enumerate(rows):
        truth = slices.take(case.truth, plane, indices[plane])
        _show_scan(grid[row, 0], case, plane, indices[plane])
        for column, (step, maps) in enumerate(maps_by_step.items(), start=1):
            of_gate = [_on_case(m, "coefficients") for m in maps if m.gate == gate]
            values = slices.take(np.mean(of_gate, axis=0), plane, indices[plane])
            ax = grid[row, column]
            style = {"cmap": "viridis", "vmin": 0, "vmax": 1}
            slices.show(ax, values, plane, case.spacing_mm, **style)
            if row == 0:
                ax.set_title(names[step], fontsize=8)
        for ax in grid[row]:
            slices.outline(ax, truth, plane, case.spacing_mm, **_LINE)
            name_panel(ax, next(letter))
        name_row(grid[row, 0], f"gate {gate}, {plane}")
    grid[0, 0].set_title("CT", fontsize=8)
    _colourbar(figure, grid[:, 1:], "viridis", 1, "attention coefficient")
    return figure


def spread(steps: Sequence[int], most: int = _MOST_STEPS) -> list[int]:
    """Returns at most so many steps, the first, the last and others between them."""
    if len(steps) <= most:
        return list(steps)
    chosen = np.linspace(0, len(steps) - 1, most).round().astype(int)
    return [steps[i] for i in chosen]


def _on_case(one: AttentionMap, kind: str) -> np.ndarray:
    """A map at the voxels of the case, whose grid is the map's `grid`."""
    return onto_grid(getattr(one, kind), one.affine, one.grid, order="linear")


def _gates_text(maps: Sequence[AttentionMap], gates: Sequence[int]) -> str:
    """Says of each gate how fine its coefficients are."""
    words = []
    for gate in gates:
        one = next(one for one in maps if one.gate == gate)
        sizes = np.linalg.norm(one.affine[:3, :3], axis=0)
        size = " x ".join(f"{mm:.3g}" for mm in sizes)
        words.append(f"those of gate {gate} of {size} mm")
    return f"Coefficients are of voxels: {', '.join(words)}; drawn smoothly."


def _colourbar(
    figure: Figure, axes: np.ndarray, colours: str, top: float, label: str
) -> None:
    part: Any = figure.subfigs[0]
    bar = part.colorbar(
        ScalarMappable(Normalize(0, top), colours),
        ax=axes.ravel().tolist(),
        fraction=0.04,
        pad=0.01,
        aspect=30,
    )
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
