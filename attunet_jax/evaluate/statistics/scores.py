"""What a score of a row is for statistics: its direction, its penalty, one a case.

A distance of an organ that one of the two label maps lacks is undefined, so a network
that misses the organ altogether would gain by it: means are given over the cases that
define the metric, and with a penalty in the others.

| metric | better | penalty where one of the maps lacks the organ |
|---|---|---|
| overlap, surface Dice | higher | none needed: the score is 0 |
| distances | lower | `diagonal_mm`: the diagonal of the scored image |
| volume errors | nearer to 0 | none: undefined only without a true volume |

Where both maps lack the organ nothing was missed: undefined, without a penalty.
"""

from collections.abc import Iterable, Mapping

from attunet_jax.evaluate.definitions import METRICS

DISTANCES = frozenset(
    name for name, m in METRICS.items() if (m.better, m.unit) == ("lower", "mm")
)
# Signed; compared by their absolute value.
ERRORS = frozenset(name for name, m in METRICS.items() if m.better == "nearer 0")
# As the paper's tables call them.
_PAPER = {"dice": "DSC", "surface_distance_mm": "S2S Dist (mm)"}


def metric_label(metric: str) -> str:
    """Returns `DSC` or `Hausdorff 95 % (mm)`."""
    if metric in _PAPER:
        return _PAPER[metric]
    described = METRICS[metric]
    unit = f" ({described.unit})" if described.unit else ""
    return described.label + unit


def label(organ: str, metric: str) -> str:
    """Returns `Left kidney DSC`."""
    name = organ.replace("_", " ")
    return f"{name[:1].upper()}{name[1:]} {metric_label(metric)}"


def decimals(metric: str) -> int:
    """Returns how many places of the metric are worth printing."""
    return 1 if metric in ERRORS else 3


def lower_is_better(metric: str) -> bool:
    return metric in DISTANCES or metric in ERRORS


def metrics_of(rows: Iterable[Mapping]) -> tuple[str, ...]:
    """Returns the metrics that the rows have, in the order of METRICS."""
    found = {key for row in rows for key in row}
    return tuple(metric for metric in METRICS if metric in found)


def by_organ(rows: Iterable[Mapping]) -> dict[str, list[Mapping]]:
    """Returns the rows of each organ, in the order in which organs first appear."""
    found: dict[str, list[Mapping]] = {}
    for row in rows:
        found.setdefault(row["organ"], []).append(row)
    return found


def penalty(row: Mapping, metric: str) -> float | None:
    """Returns what an undefined score counts as; None without a penalty.

    Rows of old evaluations lack `diagonal_mm`: their penalty is not known.
    """
    return row.get("diagonal_mm") if needs_penalty(row, metric) else None


def needs_penalty(row: Mapping, metric: str) -> bool:
    """Whether an undefined score is a failure: a distance, and a map has the organ."""
    if metric not in DISTANCES or metric not in row or row[metric] is not None:
        return False
    sizes = row.get("truth_vox"), row.get("prediction_vox")
    return any(sizes) or row.get("dice") is not None


def by_case(
    rows: Iterable[Mapping],
    organ: str,
    metric: str,
    *,
    penalised: bool = False,
    absolute: bool = False,
) -> dict[str, float | None]:
    """Returns the score of each case; None where it is undefined.

    With several seeds it is the mean over them, undefined if one of them is.

    Args:
      penalised: whether an undefined score is replaced by its penalty.
      absolute: whether errors lose their sign, for comparisons.

    Raises:
      ValueError: a case has two rows of the organ and of one seed.
    """
    values: dict[str, dict[object, float | None]] = {}
    for row in rows:
        if row["organ"] != organ:
            continue
        of_case, seed = values.setdefault(row["case_id"], {}), row.get("seed")
        if seed in of_case:
            raise ValueError(f"case {row['case_id']} has two rows for {organ}")
        value = row.get(metric)
        if value is None and penalised:
            value = penalty(row, metric)
        if value is not None and absolute and metric in ERRORS:
            value = abs(value)
        of_case[seed] = value
    return {case: _mean(list(of_case.values())) for case, of_case in values.items()}


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return None
    return defined[0] if len(defined) == 1 else sum(defined) / len(defined)
