"""Rows of panels with a caption: what the figures of a case have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attunet_jax.evaluate import slices


@dataclass(frozen=True)
class FigureCase:
    """The case that is drawn, on the network's grid; `truth` is a mask of `organ`."""

    case_id: str
    organ: str
    image_hu: np.ndarray
    truth: np.ndarray
    spacing_mm: np.ndarray
    affine: np.ndarray


def slices_text(indices: Mapping[str, int]) -> str:
    """Returns "axial 12, sagittal 30"."""
    return ", ".join(f"{plane} {index}" for plane, index in indices.items())


def panel_names() -> Iterator[str]:
    """Yields (a), (b), ..., (z), (aa), ..."""
    for first in ("", *ascii_lowercase):
        yield from (f"({first}{letter})" for letter in ascii_lowercase)


def name_panel(ax: Axes, name: str) -> None:
    """Writes the name of a panel into its corner."""
    ax.text(
        *(0.02, 0.97, name),
        transform=ax.transAxes,
        va="top",
        fontsize=7,
        color="white",
        bbox={"facecolor": "black", "alpha": 0.5, "lw": 0, "pad": 1},
    )


def name_row(ax: Axes, text: str) -> None:
    """Writes what a row shows at the left of its first panel."""
    ax.text(
        *(-0.04, 0.5, text),
        transform=ax.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=8,
    )


def grid_of_panels(
    case: FigureCase,
    planes: Sequence[str],
    columns: int,
    text: str,
    width: float,
    *,
    legend: bool = False,
) -> tuple[Figure, np.ndarray]:
    """A captioned figure with a row of panels for each plane, all of one width."""
    sizes = [
        slices.take(case.image_hu, plane, 0).shape
        * slices.pixel_mm(case.spacing_mm, plane)
        for plane in planes
    ]
    ratios = [height / wide for height, wide in sizes]
    tall = width * sum(ratios) + 0.15 * len(planes) + 0.5 + 0.4 * legend
    figure, above = slices.captioned(width * columns + 1.4, tall, text)
    grid = above.subplots(len(planes), columns, squeeze=False, height_ratios=ratios)
    return figure, grid
