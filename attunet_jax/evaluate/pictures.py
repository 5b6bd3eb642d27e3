"""Draws label maps on slices of a scan, and learning curves, as PNG pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attunet_jax.files import replacing

WINDOW_HU = (-100, 240)  # soft tissue in a portal-venous scan
# In canonical order D runs feet to head, H front to back, W patient's right to left.
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
COLOURS = ("#ffb000", "#00d0ff", "#ff4f9a", "#7be36a", "#b58cff", "#ff7043", "#f5f564")
DOTS_PER_INCH = 110
PANEL_INCHES = 4.6


def overlay_png(
    path: str | Path,
    image_hu: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    spacing_mm,
    organs: Mapping[str, int],
    title: str,
    *,
    organ: str = "pancreas",
    panels: Sequence[str] = tuple(PLANES),
) -> None:
    """Draws the slices that show most of an organ, outlined by truth and prediction.

    In radiological orientation: the patient's right on the left of axial and coronal
    slices, front up in axial and left in sagittal ones, head up. True proportions.

    Args:
      path: PNG file.
      image_hu: [D, H, W] in canonical order.
      truth, prediction: labels [D, H, W], drawn solid and dashed; either may be None.
      spacing_mm: 3 lengths [D, H, W].
      organs: name -> label, all of which are outlined.
      organ: the organ whose slices are drawn; if it does not occur, all organs count.
      panels: some of PLANES, left to right.

    Raises:
      ValueError: a label map is not of the image's shape.
    """
    maps = {"truth": truth, "prediction": prediction}
    maps = {name: labels for name, labels in maps.items() if labels is not None}
    for name, labels in maps.items():
        if labels.shape != image_hu.shape:
            raise ValueError(f"{name} is {labels.shape}, the image {image_hu.shape}")
    spacing = np.asarray(spacing_mm, float)
    indices = _slices(list(maps.values()), organs, organ, image_hu.shape)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(organs)}

    sides_mm = [
        np.delete(np.array(image_hu.shape) * spacing, PLANES[panel]) for panel in panels
    ]
    width = PANEL_INCHES * len(panels)
    height = width * max(h for h, _ in sides_mm) / sum(w for _, w in sides_mm)
    figure = Figure((width, height + 1.1), DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(
        1, len(panels), squeeze=False, width_ratios=[w for _, w in sides_mm]
    )[0]
    for ax, panel in zip(axes, panels, strict=True):
        axis = PLANES[panel]
        _draw_slice(
            ax,
            image_hu.take(indices[axis], axis),
            {name: labels.take(indices[axis], axis) for name, labels in maps.items()},
            np.delete(spacing, axis),
            organs,
            colours,
            head_up=panel != "axial",
        )
        ax.set_title(f"{panel}, slice {indices[axis]}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.legend(
        handles=_legend(maps, colours),
        loc="outside lower center",
        ncols=len(maps) + len(organs),
        fontsize=9,
        facecolor="#303030",
        labelcolor="white",
    )
    _save(figure, Path(path))


def learning_curve_png(path: str | Path, rows: Sequence[Mapping]) -> None:
    """Draws the loss, and the validation Dice if there is one, against the step.

    Args:
      path: PNG file.
      rows: of a run's metrics.jsonl: step, and loss or held_out_<organ> or
        held_out_dice (their mean) or both.
    """
    prefix = "held_out_"
    held_out = dict.fromkeys(k for row in rows for k in row if k.startswith(prefix))
    plots = {"training loss": {"loss": "loss"}}
    if held_out:
        names = {key: key.removeprefix(prefix) for key in held_out}
        plots["held-out Dice"] = {
            key: "mean of organs" if name == "dice" else name
            for key, name in names.items()
        }
    figure = Figure((5.5 * len(plots), 4), DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(1, len(plots), squeeze=False)[0]
    for ax, (title, curves) in zip(axes, plots.items(), strict=True):
        for key, label in curves.items():
            points = [(row["step"], row[key]) for row in rows if key in row]
            mean = key == prefix + "dice"
            ax.plot(
                *np.array(points, float).reshape(-1, 2).T,
                marker="." if len(points) < 60 else None,
                color="black" if mean else None,
                linewidth=2.2 if mean else 1.4,
                label=label,
            )
        ax.set_xlabel("step")
        ax.set_title(title, fontsize=11)
        ax.grid(alpha=0.3)
    if held_out:
        axes[1].set_ylim(0, 1)
        axes[1].legend(fontsize=9)
    _save(figure, Path(path))


def _slices(
    maps: list[np.ndarray],
    organs: Mapping[str, int],
    organ: str,
    shape: tuple[int, ...],
) -> list[int]:
    """The slice on each axis with most of the organ, in the first map that has it."""
    preferred = [[organs[organ]]] if organ in organs else []
    for values in [*preferred, list(organs.values())]:
        for labels in maps:
            mask = np.isin(labels, values)
            if mask.any():
                return [
                    int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax())
                    for axis in range(3)
                ]
    return [n // 2 for n in shape]


def _draw_slice(
    ax: Axes,
    image_hu: np.ndarray,
    maps: Mapping[str, np.ndarray],
    pixel_mm: np.ndarray,
    organs: Mapping[str, int],
    colours: Mapping[str, str],
    *,
    head_up: bool,
) -> None:
    height, width = np.array(image_hu.shape) * pixel_mm
    ax.imshow(
        image_hu,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        origin="lower" if head_up else "upper",
        extent=(0, width, 0, height) if head_up else (0, width, height, 0),
    )
    for name, labels in maps.items():
        # A border of background closes the outline of an organ that is cut off.
        padded = np.pad(labels, 1)
        y, x = (
            (np.arange(n) - 0.5) * mm
            for n, mm in zip(padded.shape, pixel_mm, strict=True)
        )
        for organ, label in organs.items():
            mask = padded == label
            if mask.any():
                ax.contour(x, y, mask, levels=[0.5], **_style(name, colours[organ]))
    ax.set_xlim(0, width)
    ax.set_ylim((0, height) if head_up else (height, 0))
    ax.set_axis_off()


def _style(name: str, colour: str) -> dict:
    """Solid for the truth; dashed and paler, to show on top, for the prediction."""
    if name == "truth":
        return {"colors": [colour], "linestyles": "solid", "linewidths": 1.4}
    pale = tuple(0.45 * c + 0.55 for c in to_rgb(colour))
    return {"colors": [pale], "linestyles": "dashed", "linewidths": 1.4}


def _legend(maps: Mapping, colours: Mapping[str, str]) -> list[Line2D]:
    lines = {"truth": "solid", "prediction": "dashed"}
    return [
        *(Line2D([], [], color="white", ls=lines[m], label=m) for m in maps),
        *(Line2D([], [], color=c, lw=4, label=o) for o, c in colours.items()),
    ]


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
