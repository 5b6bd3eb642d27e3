"""Draws label maps on slices of a scan, and learning curves, as PNG pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attunet_jax.evaluate.slices import (
    DOTS_PER_INCH,
    PLANES,
    SIDES_TEXT,
    WINDOW_HU,
    captioned,
    largest_slice,
    letters,
    outline,
    pixel_mm,
    save,
    show_ct,
    take,
)

COLOURS = ("#ffb000", "#00d0ff", "#ff4f9a", "#7be36a", "#b58cff", "#ff7043", "#f5f564")
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
    slices, front up in axial and left in sagittal ones, head up. True proportions. A
    caption says what is seen.

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
    mask, shown = _shown(maps, organs, organ)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(organs)}

    sides_mm = [
        take(image_hu, panel, 0).shape * pixel_mm(spacing_mm, panel) for panel in panels
    ]
    width = PANEL_INCHES * len(panels)
    height = width * max(h for h, _ in sides_mm) / sum(w for _, w in sides_mm)
    low, high = WINDOW_HU
    figure, above = captioned(
        width,
        height + 1.1,
        f"Slices through {shown}, smoothed between voxels of "
        f"{' x '.join(f'{mm:.3g}' for mm in np.asarray(spacing_mm, float))} mm "
        f"(D x H x W); window {low} to {high} HU. {_lines_text(maps)}{SIDES_TEXT}.",
    )
    axes = above.subplots(
        1, len(panels), squeeze=False, width_ratios=[w for _, w in sides_mm]
    )[0]
    for ax, panel in zip(axes, panels, strict=True):
        index = image_hu.shape[PLANES[panel]] // 2
        if mask is not None:
            index = largest_slice(mask, panel)
        show_ct(ax, take(image_hu, panel, index), panel, spacing_mm)
        for name, labels in maps.items():
            for one, label in organs.items():
                of_organ = take(labels, panel, index) == label
                style = _style(name, colours[one])
                outline(ax, of_organ, panel, spacing_mm, **style)
        letters(ax, panel)
        ax.set_title(f"{panel}, slice {index}", fontsize=9)
    above.suptitle(title, fontsize=11)
    above.legend(
        handles=_legend(maps, colours),
        loc="outside lower center",
        ncols=len(maps) + len(organs),
        fontsize=9,
        facecolor="#303030",
        labelcolor="white",
    )
    save(figure, Path(path))


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
    save(figure, Path(path))


def _shown(
    maps: Mapping[str, np.ndarray], organs: Mapping[str, int], organ: str
) -> tuple[np.ndarray | None, str]:
    """What the slices show most of, in the first map that has it, and its name."""
    wanted = [(list(organs.values()), "the largest extent of all organs")]
    if organ in organs:
        wanted.insert(0, ([organs[organ]], f"the largest extent of {organ}"))
    for values, text in wanted:
        for name, labels in maps.items():
            mask = np.isin(labels, values)
            if mask.any():
                return mask, f"{text} in the {name}"
    return None, "the middle of the scan"


def _lines_text(maps: Mapping[str, np.ndarray]) -> str:
    """What solid and dashed outlines are."""
    lines = {"truth": "solid", "prediction": "dashed"}
    words = [f"{name} {lines[name]}" for name in maps]
    return f"Outlines: {', '.join(words)}. " if words else ""


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
