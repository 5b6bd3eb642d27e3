"""Writes report.html: evaluated networks as one page, of at most 5 MB."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from attunet_jax.evaluate.page.case_table import case_section
from attunet_jax.evaluate.page.drawings.boxes import box_panels
from attunet_jax.evaluate.page.drawings.curves import curve_panels
from attunet_jax.evaluate.page.drawings.scatter import scatter_panels
from attunet_jax.evaluate.page.drawings.svg import COLOURS
from attunet_jax.evaluate.page.groups import Groups, group_section
from attunet_jax.evaluate.page.headline import headline
from attunet_jax.evaluate.page.names import FIRST, heading, metrics_in, organs_in
from attunet_jax.evaluate.page.room import (
    MAX_BYTES,
    PLOT_BYTES,
    fitting,
    left_out_text,
)
from attunet_jax.evaluate.page.scores import (
    comparison_section,
    comparisons,
    means_of,
    means_section,
    seed_and_rank_section,
)
from attunet_jax.evaluate.page.script import SCRIPT
from attunet_jax.evaluate.page.seeds import over_seeds
from attunet_jax.evaluate.page.study.checklist import checklist_section
from attunet_jax.evaluate.page.study.runs import (
    Source,
    config_section,
    data_of,
    labelled,
    read_sources,
)
from attunet_jax.evaluate.page.style import STYLE
from attunet_jax.evaluate.page.worst import worst_section
from attunet_jax.files import write_text
from attunet_jax.web_page import document

REPORT = "report.html"


def write_report(
    path: Path,
    networks: Mapping[str, Sequence[Mapping]],
    *,
    folders: Mapping[str, Sequence[Path]] | None = None,
    workdirs: Mapping[str, Sequence[Path]] | None = None,
    data: Path | None = None,
    groups: Groups | None = None,
    families: Mapping[str, str] | None = None,
    title: str = "",
    remarks: Sequence[str] = (),
) -> None:
    """Writes the report of evaluated networks.

    Args:
      path: the HTML file.
      networks: name -> rows of cases.jsonl.
      folders: name -> folders of its evaluations (one, or of each seed and fold), whose
        label maps and pictures are shown.
      workdirs: name -> the trained runs of those, for curves, config and checklist;
        otherwise the runs that the folders lie in.
      data: prepared data of the cases; otherwise that of the runs, where it is here.
      groups: attributes of the cases, see `read_groups`.
      families: name -> a word; only networks of one word are compared. All if None.
      title: the heading.
      remarks: sentences on the data, below the first words.

    Raises:
      BadArguments, BadData: `data` is no prepared data.
      OSError: the file cannot be written.
    """
    sources = read_sources(networks, folders or {}, workdirs or {})
    trained = labelled(sources)
    dataset = data_of(next((s.run for s in trained.values()), None), data)
    averaged = {name: over_seeds(rows) for name, rows in networks.items()}
    means = means_of(networks)
    found = comparisons(networks, families)
    organs = organs_in(networks)
    spacing = {} if dataset is None else _slice_spacing(dataset.manifest["cases"])
    before = [
        means_section(networks, means),
        comparison_section(found) + seed_and_rank_section(networks),
        _curves(sources),
        _boxes(averaged, organs),
        _scatters(averaged, organs, spacing),
    ]
    after = [
        group_section(networks, groups) if groups else "",
        case_section(networks),
        checklist_section(networks, trained, dataset),
        config_section(trained),
    ]
    heading_text = title or "Evaluation of " + ", ".join(networks)
    words = headline(networks, means, found)
    words += "".join(f"<p>{escape(remark)}</p>\n" for remark in remarks)
    intro = (
        f"<h1>{escape(heading_text)}</h1>\n<div class=headline>{words}</div>\n"
        f"{_key(networks)}"
    )
    room = MAX_BYTES - 40_000 - len("".join([intro, *before, *after]).encode())
    worst = worst_section(averaged, sources, dataset, room)
    sections = [part for part in (*before, worst, *after) if part]
    body = intro + _contents(sections) + "".join(sections)
    write_text(path, document(heading_text, body, style=STYLE, script=SCRIPT))


def _key(networks: Mapping[str, Sequence[Mapping]]) -> str:
    """The colour of each network, the same in all drawings."""
    items = "".join(
        f'<li><span class="swatch n{i % COLOURS}"></span>{escape(name)}</li>'
        for i, name in enumerate(networks)
    )
    return f"<ul class=key aria-label=Networks>{items}</ul>\n"


_NAMES = {
    "scores": "Scores",
    "comparisons": "Comparisons",
    "curves": "Learning curves",
    "boxes": "Box plots",
    "scatter": "Dice and the case",
    "worst": "Worst cases",
    "groups": "Subgroups",
    "cases": "All cases",
    "checklist": "Checklist",
    "config": "Configuration",
}


def _contents(sections: Sequence[str]) -> str:
    links = "".join(
        f'<a href="#{name}">{label}</a>'
        for name, label in _NAMES.items()
        if any(section.find(f" id={name}", 0, 400) >= 0 for section in sections)
    )
    return f"<nav aria-label=Contents>{links}</nav>\n"


def _curves(sources: Mapping[str, Sequence[Source]]) -> str:
    panels = curve_panels(
        {
            name: [source.run.metrics for source in of_name if source.run]
            for name, of_name in sources.items()
        }
    )
    if not panels:
        return ""
    parts, left_out, _ = fitting(panels, PLOT_BYTES // 4)
    return (
        "<h2 id=curves>Learning curves</h2>\n"
        f"<div class=plots>{''.join(parts)}</div>\n"
        + left_out_text(left_out, "curves are", "metrics.jsonl of each run has them")
    )


def _boxes(networks: Mapping[str, Sequence[Mapping]], organs: Sequence[str]) -> str:
    """Box plots of every metric; those beyond the first open on request."""
    metrics = metrics_in(row for rows in networks.values() for row in rows)
    if not metrics:
        return ""
    room, left_out, parts = PLOT_BYTES, 0, []
    for metric in metrics:
        panels, lost, room = fitting(box_panels(networks, metric, organs), room)
        left_out += lost
        if not panels:
            continue
        plots = f"<div class=plots>{''.join(panels)}</div>\n"
        name = escape(heading(metric))
        parts.append(
            f"<h3>{name}</h3>\n{plots}"
            if metric in FIRST
            else f"<details><summary>{name}</summary>\n{plots}</details>\n"
        )
    return (
        "<h2 id=boxes>Scores by organ and network</h2>\n"
        "<p class=note>Box: quartiles and median; diamond: mean; whiskers reach the "
        "last value within 1.5 quartile distances. A thin line follows each case from "
        "one network to the next.</p>\n"
        + "".join(parts)
        + left_out_text(left_out, "box plots are", "report fewer networks at once")
    )


def _scatters(
    networks: Mapping[str, Sequence[Mapping]],
    organs: Sequence[str],
    slice_mm: Mapping[str, float],
) -> str:
    """Dice against the organ's true volume, and against the scan's slice spacing."""

    def spacing_of(row: Mapping) -> float | None:
        known = slice_mm.get(str(row["case_id"]))
        return known or (row.get("spacing_mm") or [None])[0]

    volume = scatter_panels(
        networks, organs, lambda row: row.get("truth_ml"), "true volume, ml", log=True
    )
    spacing = scatter_panels(
        networks, organs, spacing_of, "slice spacing of the scan, mm", log=False
    )
    parts, left_out, room = fitting(volume, PLOT_BYTES * 2 // 5)
    more, lost, _ = fitting(spacing, room)
    if not parts and not more:
        return ""
    html = (
        "<h2 id=scatter>Dice against volume and spacing</h2>\n"
        "<p class=note>A dot for each case. ρ: Spearman’s rank correlation, "
        "in the order of the networks; it says nothing about causes.</p>\n"
    )
    if parts:
        html += f"<h3>Volume of the organ</h3><div class=plots>{''.join(parts)}</div>\n"
    if more:
        html += f"<h3>Spacing of slices</h3><div class=plots>{''.join(more)}</div>\n"
    elif not spacing:
        html += (
            "<p class=note>No plot against spacing: all cases have the same, or it is "
            "not known. Spacings of the scans themselves are in the prepared data "
            "(--data).</p>\n"
        )
    return html + left_out_text(left_out + lost, "plots are", "report fewer at once")


def _slice_spacing(cases: Sequence[Mapping]) -> dict[str, float]:
    """Distance of slices of each scan as it was before preparation, in mm."""
    found = {}
    for case in cases:
        match case:
            case {
                "case_id": str(name),
                "original_spacing_mm": [int() | float() as d, *_],
            }:
                found[name] = float(d)
    return found
