"""Box plots of a metric by organ and network; a thin line follows each case."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.page.drawings import svg
from attunet_jax.evaluate.page.names import heading, number, organ_label

WIDTH, HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 28, 38
MOST_LINES = 150  # in a panel; of more cases so many, evenly chosen by their value
MOST_NAMED = 3  # outliers of a box that are named where a pointer rests on them
WHISKER = 1.5  # quartile distances beyond which a value is drawn by itself

# network -> organ -> case -> value, where the metric is defined.
Values = Mapping[str, Mapping[str, Mapping[str, float]]]


def values_of(networks: Mapping[str, Sequence[Mapping]], metric: str) -> Values:
    """Returns the metric by network, organ and case, where it is defined."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for network, rows in networks.items():
        of_network = found.setdefault(network, {})
        for row in rows:
            if (value := row.get(metric)) is not None:
                of_organ = of_network.setdefault(row["organ"], {})
                of_organ[str(row["case_id"])] = float(value)
    return found


def box_panels(
    networks: Mapping[str, Sequence[Mapping]], metric: str, organs: Sequence[str]
) -> list[str]:
    """Draws a panel for each organ that has a value of the metric."""
    values = values_of(networks, metric)
    every = [
        value
        for of_network in values.values()
        for of_organ in of_network.values()
        for value in of_organ.values()
    ]
    if not every:
        return []
    # Shares have one scale for all organs; a distance or volume has that of its organ.
    shared = None if METRICS[metric].unit else svg.around([*every, 1.0])
    panels = []
    for organ in organs:
        of_organ = {name: values[name].get(organ, {}) for name in networks}
        if any(of_organ.values()):
            missing = {
                name: sum(row["organ"] == organ for row in rows) - len(of_organ[name])
                for name, rows in networks.items()
            }
            panels.append(_panel(of_organ, missing, metric, organ, shared))
    return panels


def _panel(
    of_organ: Mapping[str, Mapping[str, float]],
    missing: Mapping[str, int],
    metric: str,
    organ: str,
    shared: tuple[float, float] | None,
) -> str:
    every = [value for of_network in of_organ.values() for value in of_network.values()]
    low, high = shared or svg.around(every)
    y = svg.Scale(low, high, HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(of_organ)
    middles = [LEFT + slot * (i + 0.5) for i in range(len(of_organ))]
    body = [
        svg.text(LEFT, 15, organ_label(organ), "b"),
        svg.vertical_axis(y, LEFT, WIDTH - RIGHT),
        _paired_lines(list(of_organ.values()), middles, y),
    ]
    told = []
    for i, (network, of_network) in enumerate(of_organ.items()):
        body.append(_box(of_network, middles[i], min(slot * 0.45, 34), y, i))
        words = svg.shortened(network, slot)
        body.append(svg.text(middles[i], HEIGHT - 22, words, f"m n{i % 8}", network))
        n = f"n = {len(of_network)}"
        if missing[network]:
            n += f", {missing[network]} undef."
        body.append(svg.text(middles[i], HEIGHT - 8, n, "m"))
        if of_network:
            median = number(float(np.median(list(of_network.values()))))
            told.append(f"{network}: median {median}, {n}")
    label = heading(metric)
    alt = f"Box plot of {label} of {organ_label(organ)}. {'; '.join(told)}."
    return svg.drawing(WIDTH, HEIGHT, "".join(body), alt)


def _paired_lines(
    of_networks: Sequence[Mapping[str, float]], middles: Sequence[float], y: svg.Scale
) -> str:
    """Joins the values of each case from one network to the next that has it."""
    cases = dict.fromkeys(case for of_network in of_networks for case in of_network)
    chosen = sorted(cases, key=lambda c: next(v[c] for v in of_networks if c in v))
    if len(chosen) > MOST_LINES:
        places = np.linspace(0, len(chosen) - 1, MOST_LINES).round().astype(int)
        chosen = [chosen[i] for i in places]
    path = ""
    for case in chosen:
        points = [
            (x, y(of_network[case]))
            for x, of_network in zip(middles, of_networks, strict=True)
            if case in of_network
        ]
        if len(points) > 1:
            path += "M" + "L".join(f"{svg.px(x)} {svg.px(v)}" for x, v in points)
    return f'<path class=pair d="{path}"/>' if path else ""


def _box(
    of_network: Mapping[str, float], x: float, width: float, y: svg.Scale, number: int
) -> str:
    if not of_network:
        return ""
    values = np.sort(list(of_network.values()))
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    fence = WHISKER * (q3 - q1)
    inside = values[(values >= q1 - fence) & (values <= q3 + fence)]
    half = width / 2
    lines = (
        f"M{svg.px(x)} {svg.px(y(inside[0]))}V{svg.px(y(q1))}"
        f"M{svg.px(x)} {svg.px(y(q3))}V{svg.px(y(inside[-1]))}"
    )
    for end in (inside[0], inside[-1]):
        lines += f"M{svg.px(x - half / 2)} {svg.px(y(end))}h{svg.px(half)}"
    outside = {c: v for c, v in of_network.items() if v < inside[0] or v > inside[-1]}
    farthest = sorted(outside, key=lambda c: -abs(outside[c] - median))
    named = "".join(
        f"<circle cx={svg.px(x)} cy={svg.px(y(outside[case]))} r=2.6 "
        f'class="n{number % svg.COLOURS}">'
        f"<title>{escape(case)}: {outside[case]:.4g}</title></circle>"
        for case in farthest[:MOST_NAMED]
    )
    others = [(x, y(outside[case])) for case in farthest[MOST_NAMED:]]
    return (
        f'<rect class="box n{number % svg.COLOURS}" x={svg.px(x - half)} '
        f"y={svg.px(y(q3))} width={svg.px(width)} "
        f"height={svg.px(max(y(q1) - y(q3), 1))} />"
        f'<path class="edge n{number % svg.COLOURS}" d="{lines}"/>'
        f'<path class="median n{number % svg.COLOURS}" '
        f'd="M{svg.px(x - half)} {svg.px(y(median))}h{svg.px(width)}"/>'
        f'<path class=mean d="M{svg.px(x - 3)} {svg.px(y(values.mean()))}l3 -3 3 3 '
        '-3 3z"/>' + svg.dots(others, number) + named
    )
