"""Learning curves of runs: the loss and the held-out Dice against the step."""

from collections.abc import Mapping, Sequence

import numpy as np

from attunet_jax.evaluate.page.drawings import svg
from attunet_jax.evaluate.page.names import organ_label

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 28, 44
MOST_POINTS = 400  # of a curve; of a longer one so many, evenly chosen
HELD_OUT = "held_out_"

Metrics = Mapping[str, Sequence[Sequence[Mapping]]]


def curve_panels(metrics: Metrics) -> list[str]:
    """Draws the loss, the mean held-out Dice and that of each organ.

    Args:
      metrics: network -> for each of its runs the rows of metrics.jsonl: step, and
        loss or held_out_<organ> or held_out_dice (their mean) or both.
    """
    keys = dict.fromkeys(
        key
        for runs in metrics.values()
        for rows in runs
        for row in rows
        for key in row
        if key.startswith(HELD_OUT)
    )
    names = {
        "loss": "Training loss",
        HELD_OUT + "dice": "Held-out Dice, mean of organs",
    }
    names |= {
        key: f"Held-out Dice, {organ_label(key.removeprefix(HELD_OUT))}"
        for key in sorted(keys)
        if key != HELD_OUT + "dice"
    }
    if len([key for key in keys if key != HELD_OUT + "dice"]) < 2:
        names = {k: v for k, v in names.items() if k in ("loss", HELD_OUT + "dice")}
    panels = [_panel(metrics, key, title) for key, title in names.items()]
    return [panel for panel in panels if panel]


def _panel(metrics: Metrics, key: str, title: str) -> str:
    curves = [
        (name, i, points)
        for i, (name, runs) in enumerate(metrics.items())
        for rows in runs
        if (points := _points(rows, key))
    ]
    every = np.array([point for _, _, points in curves for point in points])
    if not len(every):
        return ""
    x = svg.Scale(0, max(float(every[:, 0].max()), 1), LEFT, WIDTH - RIGHT)
    held_out = key.startswith(HELD_OUT)
    bounds = (0.0, 1.0) if held_out else svg.around([0.0, *every[:, 1]])
    y = svg.Scale(*bounds, HEIGHT - BOTTOM, TOP)
    body = [
        svg.text(LEFT, 15, title, "b"),
        svg.vertical_axis(y, LEFT, WIDTH - RIGHT),
        svg.horizontal_axis(x, HEIGHT - BOTTOM),
        svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "step", "m"),
    ]
    told = []
    for name, i, curve in curves:
        points = [(x(step), y(value)) for step, value in curve]
        body.append(svg.line(points, f"curve n{i % svg.COLOURS}"))
        if held_out and len(points) < 60:
            body.append(svg.dots(points, i))
        told.append(f"{name}: {curve[-1][1]:.3f} at step {curve[-1][0]:.0f}")
    return svg.drawing(WIDTH, HEIGHT, "".join(body), f"{title}. {'; '.join(told)}.")


def _points(rows: Sequence[Mapping], key: str) -> list[tuple[float, float]]:
    points = []
    for row in rows:
        step, value = row.get("step"), row.get(key)
        if isinstance(step, int | float) and isinstance(value, int | float):
            if np.isfinite(step) and np.isfinite(value):
                points.append((float(step), float(value)))
    if len(points) > MOST_POINTS:
        places = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
        points = [points[i] for i in places]
    return points
