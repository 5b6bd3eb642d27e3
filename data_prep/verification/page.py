"""Writes the reports and pictures of all cases as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from attunet_jax.web_page import document, picture, table
from data_prep.verification.findings import ERROR, KINDS
from data_prep.verification.pictures import WINDOW_HU, Picture

_LEGEND = (
    "<p class=legend>Shapes and spacings are D x H x W: feet to head, front to back, "
    "the patient's right to left. Axes are those of the file: LPS runs to the left, "
    "the back (posterior) and the head (superior). Pictures show "
    f"{WINDOW_HU[0]} to {WINDOW_HU[1]} HU, the patient's right on the left, in "
    "sagittal ones the front. Label values that no organ has are outlined in white.</p>"
)


def page(
    reports: Sequence[Mapping],
    pictures: Sequence[Sequence[Picture]],
    colours: Mapping[str, str],
    title: str,
) -> str:
    """Returns the HTML.

    `pictures` are those of each report, `colours` "#rrggbb" of each organ's outline.
    """
    unusable = sum(not report["usable"] for report in reports)
    verdict = (
        f'<p class="bad">{unusable} of {len(reports)} cases cannot be used.</p>'
        if unusable
        else f'<p class="good">All {len(reports)} cases can be used.</p>'
    )
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>\n{verdict}\n{_LEGEND}\n",
            _kinds(reports),
            _organs(reports, colours),
            _overview(reports),
            "<h2>Pictures</h2>\n",
            *(
                _case(report, shown, colours)
                for report, shown in zip(reports, pictures, strict=True)
            ),
        ]
    )
    return document(title, body, style=_STYLE)


def _kinds(reports: Sequence[Mapping]) -> str:
    """One line for each kind of problem, with links to its cases; errors first."""
    lines = []
    for severity in ("error", "warning"):
        for kind, name in KINDS.items():
            cases = [
                report["case_id"]
                for report in reports
                if any(
                    row["kind"] == kind and row["severity"] == severity
                    for row in report["problems"]
                )
            ]
            if cases:
                lines.append(
                    f"<tr class={severity}><td><span class=tag>{severity}</span> "
                    f"{escape(name)}<td class=number>{len(cases)}<td class=links>"
                    + " ".join(map(_link, cases))
                )
    if not lines:
        return ""
    head = "<tr><th>problem<th class=number>cases<th>which"
    return f"<h2>Problems</h2>\n{table(head, lines)}"


def _organs(reports: Sequence[Mapping], colours: Mapping[str, str]) -> str:
    """One line for each organ: its colour, number of cases and volumes."""
    labelled = [report for report in reports if "organs" in report]
    lines = []
    for organ in colours:
        ml = [
            report["organs"][organ]["ml"]
            for report in labelled
            if report["organs"].get(organ, {"voxels": 0})["voxels"]
        ]
        volumes = (
            "".join(
                f"<td class=number>{value:.1f}"
                for value in (min(ml), float(np.median(ml)), max(ml))
            )
            if ml
            else "<td class=number>-" * 3
        )
        lines.append(
            f"<tr><td class=organ>{_swatch(colours[organ])}{escape(organ)}"
            f"<td class=number>{len(ml)} of {len(labelled)}{volumes}"
        )
    if not lines:
        return ""
    head = (
        "<tr><th>organ<th class=number>cases<th class=number>min ml"
        "<th class=number>median ml<th class=number>max ml"
    )
    return f"<h2>Organs</h2>\n{table(head, lines)}"


def _overview(reports: Sequence[Mapping]) -> str:
    """One line for each case, with a link to its section."""
    lines = []
    for report in reports:
        errors = sum(row["severity"] == ERROR for row in report["problems"])
        others = len(report["problems"]) - errors
        state = "error" if errors else "warning" if others else "fine"
        words = f"{others} warning{'s' * (others > 1)}" if others else "ok"
        facts = dict(_facts(report))
        lines.append(
            f"<tr class={state}><td class=links>{_link(report['case_id'])}"
            + "".join(
                f"<td class=number>{escape(facts.get(name, '-'))}"
                for name in ("shape", "spacing", "axes", "HU")
            )
            + f"<td><span class=tag>{'unusable' if errors else words}</span>"
        )
    head = (
        "<tr><th>case<th class=number>shape<th class=number>spacing"
        "<th class=number>axes<th class=number>HU<th>state"
    )
    return f"<h2>Cases</h2>\n{table(head, lines)}"


def _case(
    report: Mapping, pictures: Sequence[Picture], colours: Mapping[str, str]
) -> str:
    """The section of one case: problems, pictures, facts and organs."""
    name = escape(report["case_id"], quote=True)
    problems = "".join(
        f"<li class={row['severity']}><span class=tag>{row['severity']}</span> "
        f"{escape(row['text'])}</li>\n"
        for row in report["problems"]
    )
    shown = "".join(
        "<figure>"
        + picture(
            one.png,
            "png",
            (one.width, one.height),
            f"{one.plane} slice of {report['case_id']}",
        )
        + f"<figcaption>{one.plane}, slice {one.index + 1} of {one.count}"
        "</figcaption></figure>\n"
        for one in pictures
    )
    facts = "".join(
        f"<dt>{escape(key)}<dd>{escape(value)}\n" for key, value in _facts(report)
    )
    organs = "".join(
        f"<tr><td class=organ>{_swatch(colours[organ])}{escape(organ)}"
        f"<td class=number>{row['voxels']}<td class=number>{row['ml']:.1f}"
        f"<td class=number>{'-' if row['mean_hu'] is None else row['mean_hu']}"
        f"<td>{escape(', '.join(row['touches']) or '-')}"
        for organ, row in report.get("organs", {}).items()
    )
    head = (
        "<tr><th>organ<th class=number>voxels<th class=number>ml"
        "<th class=number>mean HU<th>touches"
    )
    return (
        f'<section id="case-{name}">\n<h3>{name}</h3>\n'
        + (f"<ul>{problems}</ul>\n" if problems else "")
        + (f"<div class=pictures>{shown}</div>\n" if shown else "")
        + f"<div class=facts><dl>{facts}</dl>\n"
        + (table(head, [organs]) if organs else "")
        + "</div>\n</section>\n"
    )


def _facts(report: Mapping) -> list[tuple[str, str]]:
    """Names and values of what was measured of a case."""
    facts = []
    if "shape" in report:
        hu = report["hu"]
        facts = [
            ("shape", " x ".join(map(str, report["shape"]))),
            ("spacing", " x ".join(f"{s:.4g}" for s in report["spacing_mm"]) + " mm"),
            ("axes", report["orientation"]),
            ("HU", f"{hu['min']:g} to {hu['max']:g}"),
            ("HU of 99 %", f"{hu['p0_5']:g} to {hu['p99_5']:g}"),
        ]
        if report["oblique_degrees"] >= 0.5:
            facts.append(("oblique by", f"{report['oblique_degrees']:.1f} degrees"))
    distance_mm = report.get("geometry", {}).get("max_corner_distance_mm")
    if distance_mm is not None:
        facts.append(("image and label", f"{distance_mm:.3g} mm apart"))
    if report.get("unnamed_labels"):
        values = [*report["unnamed_labels"].items()]
        shown = ", ".join(f"{value} ({voxels})" for value, voxels in values[:8])
        shown += f" and {len(values) - 8} more" if len(values) > 8 else ""
        facts.append(("labels without a name", shown))
    for half in ("image", "label"):
        facts.append((half, report[half] or "none"))
    return facts


def _link(case_id: str) -> str:
    name = escape(case_id, quote=True)
    return f'<a href="#case-{name}">{name}</a>'


def _swatch(colour: str) -> str:
    return f'<span class=swatch style="background:{colour}"></span>'


# The panels of the cases.
_STYLE = """
section { background: var(--panel); border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin: 1rem 0; content-visibility: auto;
  contain-intrinsic-size: auto 40rem; scroll-margin-top: 1rem; }
section th { background: var(--panel); }
section ul { list-style: none; margin: 0 0 .75rem; padding: 0; }
section li { margin: .25rem 0; overflow-wrap: anywhere; font-size: .9rem; }
.facts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin-top: .75rem; }
.facts .wide { flex: 0 1 auto; }
.facts dl { flex: 0 1 28rem; }
"""
