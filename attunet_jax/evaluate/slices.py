"""Draws slices of a scan: the right way up, in proportion, with the patient's sides.

Volumes are in canonical order: D runs feet to head, H front to back, W from the
patient's right to left. Slices are shown in radiological orientation. All positions are
in mm from the corner of the slice, rows first.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from attunet_jax.files import replacing

WINDOW_HU = (-100, 240)  # soft tissue in a portal-venous scan
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
# The patient's sides on the left, right, top and bottom of each.
SIDES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
SIDES_TEXT = (
    "R and L: the patient's right and left, A front, P back, S towards the head, I "
    "towards the feet"
)
# Warm, so that it is no grey of a scan; and no organ's colour.
_LETTER_COLOUR = "#ffdcae"
DOTS_PER_INCH = 110


def take(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """Returns slice `index` of `volume [D, H, W]` as rows and columns."""
    return volume.take(index, PLANES[plane])


def pixel_mm(spacing_mm: Sequence[float] | np.ndarray, plane: str) -> np.ndarray:
    """Returns the size (2,) of a pixel, rows first, of a slice of such a volume."""
    return np.delete(np.asarray(spacing_mm, float), PLANES[plane])


def largest_slice(mask: np.ndarray, plane: str) -> int:
    """Returns the slice that shows most of a mask `[D, H, W]`; the middle if empty."""
    axis = PLANES[plane]
    if not mask.any():
        return mask.shape[axis] // 2
    return int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax())


def show(
    ax: Axes, values: np.ndarray, plane: str, spacing_mm: Any, **style: Any
) -> Any:
    """Draws a slice, smoothly between its voxels; returns Matplotlib's image."""
    height, width = np.array(values.shape[:2]) * pixel_mm(spacing_mm, plane)
    head_up = plane != "axial"
    image = ax.imshow(
        values,
        **{"interpolation": "bilinear", **style},
        origin="lower" if head_up else "upper",
        extent=(0, width, 0, height) if head_up else (0, width, height, 0),
    )
    ax.set_xlim(0, width)
    ax.set_ylim((0, height) if head_up else (height, 0))
    ax.set_axis_off()
    return image


def show_ct(ax: Axes, image_hu: np.ndarray, plane: str, spacing_mm: Any) -> None:
    """Draws a slice in HU in the window `WINDOW_HU`."""
    low, high = WINDOW_HU
    # Clipped first: what lies between tissue and air is drawn no darker than air.
    clipped = np.clip(np.asarray(image_hu, np.float32), low, high)
    show(ax, clipped, plane, spacing_mm, cmap="gray", vmin=low, vmax=high)


def outline(
    ax: Axes,
    mask: np.ndarray,
    plane: str,
    spacing_mm: Any,
    *,
    edge: str | None = None,
    **style: Any,
) -> None:
    """Outlines a mask, the slice of a volume; nothing where it is empty.

    A line with an `edge` of another colour is seen on light and on dark.
    """
    if not mask.any():
        return
    # A border of background closes the outline of an organ that is cut off.
    padded = np.pad(mask, 1)
    y, x = (
        (np.arange(n) - 0.5) * mm
        for n, mm in zip(padded.shape, pixel_mm(spacing_mm, plane), strict=True)
    )
    drawn = ax.contour(x, y, padded, levels=[0.5], **style)
    if edge:
        drawn.set(path_effects=[withStroke(linewidth=2.2, foreground=edge)])


def letters(ax: Axes, plane: str, size: float = 8) -> None:
    """Writes the patient's sides at the edges of a slice."""
    places = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.985), (0.5, 0.015))
    aligned = (("left", "center"), ("right", "center"), ("center", "top"))
    aligned += (("center", "bottom"),)
    for letter, (x, y), (across, up) in zip(SIDES[plane], places, aligned, strict=True):
        ax.text(
            *(x, y, letter),
            transform=ax.transAxes,
            ha=across,
            va=up,
            color=_LETTER_COLOUR,
            fontsize=size,
            fontweight="bold",
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def captioned(
    width: float, height: float, text: str, size: float = 8.5
) -> tuple[Figure, Any]:
    """Makes a figure of `width` x `height` inches with a caption below these.

    Returns the figure and the part of it for panels, title and legend.
    """
    columns = max(int((width - 0.2) * 131 / size), 30)
    lines = textwrap.wrap(text, columns, break_on_hyphens=False)
    below = (len(lines) * size * 1.45 + 8) / 72
    figure = Figure((width, height + below), DOTS_PER_INCH, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below])
    above, under = parts
    under.text(
        *(0.1 / width, 1, "\n".join(lines)),
        fontsize=size,
        va="top",
        linespacing=1.35,
    )
    return figure, above


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Writes a figure as PNG, or in the format of its name; whole or not at all."""
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind == "pdf":  # equal figures give equal files
        options["metadata"] = {"CreationDate": None, **options.get("metadata", {})}
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, **options)
