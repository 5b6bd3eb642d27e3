"""Dice of each case against what the case is: its organ's volume, its spacing."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from attunet_jax.evaluate.page.drawings import svg
from attunet_jax.evaluate.page.names import organ_label

WIDTH, HEIGHT = 300, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 28, 44
MOST_POINTS = 400  # of a network in a panel, evenly chosen along the horizontal axis
FEWEST = 10  # cases from which on a rank correlation is stated


def scatter_panels(
    networks: Mapping[str, Sequence[Mapping]],
    organs: Sequence[str],
    value_of: Callable[[Mapping], float | None],
    label: str,
    *,
    log: bool,
) -> list[str]:
    """Draws a panel for each organ in which `value_of` a row differs between cases.

    Args:
      value_of: the horizontal axis; None or 0 where a row has none.
      label: its name.
    """
    panels = []
    for organ in organs:
        points = [
            [
                (value, float(row["dice"]))
                for row in rows
                if row["organ"] == organ
                and row.get("dice") is not None
                and (value := value_of(row))
            ]
            for rows in networks.values()
        ]
        if len({round(x, 4) for of_network in points for x, _ in of_network}) > 1:
            panels.append(_panel(points, list(networks), organ, label, log))
    return panels


def _panel(
    points: Sequence[Sequence[tuple[float, float]]],
    names: Sequence[str],
    organ: str,
    label: str,
    log: bool,
) -> str:
    every = np.array([point for of_network in points for point in of_network])
    low, high = every[:, 0].min(), every[:, 0].max()
    log = log and high > 3 * low
    bounds = (low / 1.1, high * 1.1) if log else svg.around(every[:, 0].tolist())
    x = svg.Scale(*bounds, LEFT, WIDTH - RIGHT, log=log)
    y = svg.Scale(*svg.around([*every[:, 1], 1.0]), HEIGHT - BOTTOM, TOP)
    body = [
        svg.text(LEFT, 15, organ_label(organ), "b"),
        svg.vertical_axis(y, LEFT, WIDTH - RIGHT),
        svg.horizontal_axis(x, HEIGHT - BOTTOM),
        svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, label, "m"),
    ]
    told = []
    for i, (name, of_network) in enumerate(zip(names, points, strict=True)):
        shown = sorted(of_network)
        if len(shown) > MOST_POINTS:
            places = np.linspace(0, len(shown) - 1, MOST_POINTS).round().astype(int)
            shown = [shown[k] for k in places]
        body.append(svg.dots(((x(a), y(b)) for a, b in shown), i))
        if (rho := _rank_correlation(of_network)) is not None:
            told.append(f"{name}: {rho:+.2f}")
    alt = f"Dice of {organ_label(organ)} against {label}, {len(every)} points."
    if told:
        alt += f" Spearman's rank correlation: {'; '.join(told)}."
    # What is told is shown too: only that of the networks that fit on a line.
    words = "ρ " + ", ".join(t.rpartition(": ")[2] for t in told[:4]) if told else ""
    body.append(svg.text(WIDTH - RIGHT, 15, words.replace("-", "−"), "e", alt))
    return svg.drawing(WIDTH, HEIGHT, "".join(body), alt)


def _rank_correlation(points: Sequence[tuple[float, float]]) -> float | None:
    if len(points) < FEWEST:
        return None
    a, b = np.array(points).T
    if a.std() == 0 or b.std() == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)  # pyright: ignore
