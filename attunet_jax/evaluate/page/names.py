"""How the page writes metrics, numbers and organs, and in which order it shows them."""

from collections.abc import Iterable, Mapping

from attunet_jax.evaluate.definitions import METRICS

# The page shows these at once, the others on request.
FIRST = ("dice", "surface_distance_mm", "hausdorff95_mm", "surface_dice_2mm")


def heading(metric: str) -> str:
    """Returns the label with its unit: `Surface distance, mm`."""
    known = METRICS[metric]
    return f"{known.label}, {known.unit}" if known.unit else known.label


def metrics_in(rows: Iterable[Mapping]) -> list[str]:
    """Returns the metrics that any row defines: those of `FIRST`, then the others."""
    rows = list(rows)
    order = [*FIRST, *(metric for metric in METRICS if metric not in FIRST)]
    return [m for m in order if any(row.get(m) is not None for row in rows)]


def organs_in(networks: Mapping[str, Iterable[Mapping]]) -> list[str]:
    """Returns the organs of all networks, in the order in which they appear."""
    return list(
        dict.fromkeys(row["organ"] for rows in networks.values() for row in rows)
    )


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """Returns `0.814`, fewer decimals from 10 on, and `–` for what is undefined."""
    if value is None:
        return "–"
    if abs(value) >= 10:
        digits = min(digits, 1 if abs(value) >= 100 else 2)
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def organ_label(organ: str) -> str:
    """Returns the name as text has it: `left kidney` for `left_kidney`."""
    return organ.replace("_", " ")
