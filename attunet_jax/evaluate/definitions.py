"""What each score means: label, unit, what is better, and one line of definition.

Summaries, tables and reports print these, so that no number stands without its meaning.
Also the two definitions of a surface's area, and the grids that scores are measured on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "nearer 0"]


@dataclass(frozen=True)
class Metric:
    """A score of one organ in one case."""

    label: str
    unit: str  # "" for a share
    better: Better
    definition: str  # one line


def _surface_dice(tolerance_mm: int) -> Metric:
    return Metric(
        f"Surface Dice {tolerance_mm} mm",
        "",
        "higher",
        f"share of both surfaces' area within {tolerance_mm} mm of the other surface; "
        "0 where one map lacks the organ",
    )


# The scores of a row of cases.jsonl, in the order of its keys.
METRICS: dict[str, Metric] = {
    "dice": Metric(
        "Dice",
        "",
        "higher",
        "twice the voxels that both maps share, divided by the sum of both; 0 where "
        "one map lacks the organ, undefined where both do",
    ),
    "iou": Metric(
        "IoU", "", "higher", "voxels that both maps share, divided by those of either"
    ),
    "precision": Metric(
        "Precision",
        "",
        "higher",
        "share of the predicted voxels that are true; 0 where the organ was missed",
    ),
    "recall": Metric(
        "Recall",
        "",
        "higher",
        "share of the true voxels that were predicted; undefined without a true organ",
    ),
    "volume_error_ml": Metric(
        "Volume error",
        "ml",
        "nearer 0",
        "predicted minus true volume; undefined where both maps lack the organ",
    ),
    "volume_error_percent": Metric(
        "Volume error",
        "%",
        "nearer 0",
        "predicted minus true volume, of the true volume; undefined without a true "
        "organ",
    ),
    "surface_distance_mm": Metric(
        "Surface distance",
        "mm",
        "lower",
        "mean of the two one-way mean distances between the surfaces, in 3-D and by "
        "area; undefined where a map lacks the organ",
    ),
    "hausdorff95_mm": Metric(
        "Hausdorff 95 %",
        "mm",
        "lower",
        "distance to the other surface that 95 % of a surface's area does not exceed, "
        "the larger of the two; undefined where a map lacks the organ",
    ),
    "surface_dice_1mm": _surface_dice(1),
    "surface_dice_2mm": _surface_dice(2),
    "surface_dice_3mm": _surface_dice(3),
    "contour_distance_mm": Metric(
        "Axial contour distance",
        "mm",
        "lower",
        "as in the published code: mean distance of the outer contours in axial slices "
        "where both maps have the organ; missed slices do not count, which flatters",
    ),
}

# Whose areas weigh the pieces of a surface. The names are those of `--definition`.
DEFINITIONS = {
    "mesh": "surface areas are those of the mesh between the voxels, with each bent "
    "polygon cut into triangles around its centre",
    "surface_distance": "surface areas are those of google-deepmind's surface-distance",
}

# The names are those of `--grid`.
GRIDS = {
    "prepared": "scored on the grid of the prepared data, not on the scans' own",
    "scan": "scored on each scan's own grid, against its original label map",
}


def definitions_text(metrics: Iterable[str]) -> str:
    """Returns a Markdown list: a line for each metric, `- dice: ...`."""
    return "".join(
        f"- {name}{f' ({m.unit})' if m.unit else ''}: {m.definition}. Better: "
        f"{m.better}.\n"
        for name, m in ((name, METRICS[name]) for name in metrics)
    )
