"""Writes the reports and pictures of all cases as one self-contained HTML page."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

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
    return "".join(
        [
            "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n",
            '<meta name=viewport content="width=device-width, initial-scale=1">\n',
            # No scripts and nothing from the network, whatever a file's name contains.
            '<meta http-equiv="Content-Security-Policy" content="default-src '
            "'none'; img-src data:; style-src 'unsafe-inline'\">\n",
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n",
            f"<body>\n<h1>{escape(title)}</h1>\n{verdict}\n{_LEGEND}\n",
            _kinds(reports),
            _organs(reports, colours),
            _overview(reports),
            "<h2>Pictures</h2>\n",
            *(
                _case(report, shown, colours)
                for report, shown in zip(reports, pictures, strict=True)
            ),
            "</body>\n</html>\n",
        ]
    )


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
    return f"<h2>Problems</h2>\n{_table(head, lines)}"


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
    return f"<h2>Organs</h2>\n{_table(head, lines)}"


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
    return f"<h2>Cases</h2>\n{_table(head, lines)}"


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
        f"<figure><img decoding=async width={picture.width} height={picture.height} "
        f'alt="{picture.plane} slice of {name}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.png).decode()}"><figcaption>{picture.plane}, slice '
        f"{picture.index + 1} of {picture.count}</figcaption></figure>\n"
        for picture in pictures
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
        + (_table(head, [organs]) if organs else "")
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


def _table(head: str, lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    return (
        f"<div class=wide><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>"
        "</table></div>\n"
    )


def _link(case_id: str) -> str:
    name = escape(case_id, quote=True)
    return f'<a href="#case-{name}">{name}</a>'


def _swatch(colour: str) -> str:
    return f'<span class=swatch style="background:{colour}"></span>'


# Light and dark, for screens of any width and for many cases.
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5d6771; --ground: #ffffff;
  --panel: #f5f6f8; --line: #dde1e6; --link: #0b5cad; --error: #b3261e;
  --warning: #8a5a00; --fine: #1f7a3f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --dim: #9aa4ae;
  --ground: #14171a; --panel: #1d2125; --line: #333a41; --link: #7db8f0;
  --error: #ff8a80; --warning: #f0b955; --fine: #79cf95; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.wide { overflow: auto; max-height: 32rem; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; position: sticky; top: 0;
  background: var(--ground); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.links { overflow-wrap: anywhere; min-width: 9rem; }
.organ { white-space: nowrap; }
.legend { color: var(--dim); font-size: .875rem; max-width: 48rem; }
.tag { font-size: .75rem; font-weight: 600; border: 1px solid currentColor;
  border-radius: .25rem; padding: 0 .35rem; white-space: nowrap; }
.error .tag, .bad { color: var(--error); }
.warning .tag { color: var(--warning); }
.fine .tag, .good { color: var(--fine); }
.bad, .good { font-weight: 600; margin: 0; }
section { background: var(--panel); border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin: 1rem 0; content-visibility: auto;
  contain-intrinsic-size: auto 40rem; scroll-margin-top: 1rem; }
section th { background: var(--panel); }
section ul { list-style: none; margin: 0 0 .75rem; padding: 0; }
section li { margin: .25rem 0; overflow-wrap: anywhere; font-size: .9rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-end; }
figure { margin: 0; }
figure img { display: block; background: #000; max-width: 100%; height: auto; }
figcaption { color: var(--dim); font-size: .8rem; }
.facts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin-top: .75rem; }
.facts .wide { flex: 0 1 auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0;
  font-size: .875rem; flex: 0 1 28rem; align-content: start; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .45em;
  border: 1px solid #0006; border-radius: .15em; vertical-align: -.05em; }
@media print { .wide { max-height: none; } }
"""
