"""Finds problems in the measurements of one case, and between those of all cases.

The findings here are warnings. Errors come from the checks of `prepare` itself, and so
do doubts about a scan or a mirrored label map (`attunet_jax.volume.checks`).
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attunet_jax.volume import checks
from data_prep.align import soft_tissue
from data_prep.wording import listed

ERROR, WARNING = "error", "warning"
# Kinds of problems, with their names in the summary.
KINDS = {
    "unclear": "more files than one case can have",
    "missing_half": "image or label map missing",
    "unreadable": "cannot be read",
    "too_large": "spacing leads to an absurd size",
    "different_grids": "image and label map on different grids",
    "unnamed_labels": "label values without a name",
    **checks.REFUSED,
    **checks.DOUBTED,
    "values_clipped": "values beyond 16 bits",
    "skewed": "axes not at right angles",
    "empty_label": "empty label map",
    "organ_missing": "organ missing",
    "touches_border": "organ touches the border of the scan",
    "not_tissue": "organ does not lie on soft tissue",
    "duplicate_scan": "same scan in several cases",
    "duplicate_label": "same label map for different scans",
    "unusual_spacing": "unusual spacing",
}
# Mean HU of any organ under a label map that fits, with and without contrast.
TISSUE_HU = (-100, 400)
MAX_SKEW_DEGREES = 0.5
# Range of spacings in CT, mm: of slices, and of pixels within them.
USUAL_SPACING_MM = ((0.2, 10.0), (0.2, 5.0), (0.2, 5.0))
# An outlier differs from the median by this factor, and by so many deviations.
OUTLIER_FACTOR, OUTLIER_DEVIATIONS, MIN_CASES = 2.0, 5.0, 5


def problem(kind: str, text: str, severity: str = WARNING) -> dict:
    """Returns a row of `problems` in verify.json. `kind` is one of KINDS."""
    assert kind in KINDS
    return {"severity": severity, "kind": kind, "text": text}


def image_findings(report: Mapping) -> list[dict]:
    """Problems of a scan, from what `measure_image` returns."""
    found = []
    if report["hu"]["min"] < -32768 or report["hu"]["max"] > 32767:
        found.append(
            problem(
                "values_clipped",
                f"values from {report['hu']['min']} to {report['hu']['max']}: they "
                "will be clipped to -32768 to 32767",
            )
        )
    if report["skew_degrees"] > MAX_SKEW_DEGREES:
        found.append(
            problem(
                "skewed",
                f"axes are {report['skew_degrees']:g} degrees off right angles (gantry "
                "tilt?): shapes and distances will be distorted; straighten the scan",
            )
        )
    return found


def label_findings(organs: Mapping[str, Mapping]) -> list[dict]:
    """Problems of a label map, from what `measure_labels` returns for each organ."""
    present = {name: organ for name, organ in organs.items() if organ["voxels"]}
    if not present:
        return [problem("empty_label", "no voxel belongs to any organ")]
    found = []
    if missing := [name for name in organs if name not in present]:
        found.append(problem("organ_missing", f"absent: {', '.join(missing)}"))
    cut_off = [
        f"{name} ({_enumerate(organ['touches'])})"
        for name, organ in present.items()
        if organ["touches"]
    ]
    if cut_off:
        found.append(
            problem(
                "touches_border",
                f"at the border of the scan, possibly cut off: {', '.join(cut_off)}",
            )
        )
    not_tissue = [
        f"{name} ({organ['mean_hu']:g} HU)"
        for name, organ in present.items()
        if organ["mean_hu"] is not None
        and not TISSUE_HU[0] <= organ["mean_hu"] <= TISSUE_HU[1]
        and soft_tissue(name)
    ]
    if not_tissue:
        found.append(
            problem(
                "not_tissue",
                f"no soft tissue on average under {', '.join(not_tissue)}: is the "
                "label map flipped or of another scan, or the scan not in HU?",
            )
        )
    return found


def across_cases(reports: Sequence[Mapping]) -> list[list[dict]]:
    """Returns for each report the problems that only show between cases.

    These are duplicates, and spacings that differ from the others'.
    """
    found: dict[int, list[dict]] = defaultdict(list)
    read = [report for report in reports if "content" in report]
    for report, twins in _groups(read, "content"):
        others = [twin["case_id"] for twin in twins]
        real = os.path.realpath(report["image"])
        if all(os.path.realpath(twin["image"]) == real for twin in twins):
            text = f"the same file as {listed(others)}: the same case twice"
        else:
            text = f"the same voxels as {listed(others)}: keep one"
        found[id(report)].append(problem("duplicate_scan", text))
    for report, twins in _groups(read, "content_unordered"):
        turned = [t["case_id"] for t in twins if t["content"] != report["content"]]
        if turned:
            text = f"a mirrored or turned copy of {listed(turned)}: keep one"
            found[id(report)].append(problem("duplicate_scan", text))
    labelled = [report for report in read if report.get("label_content")]
    for report, twins in _groups(labelled, "label_content"):
        others = [t["case_id"] for t in twins if t["content"] != report["content"]]
        if others:
            text = f"the label map is that of {listed(others)}, the scan is not"
            found[id(report)].append(problem("duplicate_label", text))
    for report, text in _unusual_spacings(read):
        found[id(report)].append(problem("unusual_spacing", text))
    return [found[id(report)] for report in reports]


def _enumerate(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _groups(
    reports: Sequence[Mapping], key: str
) -> Iterable[tuple[Mapping, list[Mapping]]]:
    """Yields each report that shares the value of `key`, with the others that do."""
    groups = defaultdict(list)
    for report in reports:
        groups[report[key]].append(report)
    for report in reports:
        if twins := [twin for twin in groups[report[key]] if twin is not report]:
            yield report, twins


def _unusual_spacings(reports: Sequence[Mapping]) -> Iterable[tuple[Mapping, str]]:
    """Yields each report with an unusual spacing, and the problem."""
    spacings = np.array([report["spacing_mm"] for report in reports]).reshape(-1, 3)
    logs = np.log(spacings)
    enough = len(reports) >= MIN_CASES
    median = limit = np.zeros(3)
    if enough:
        # Imported late: it takes long.
        from scipy.stats import median_abs_deviation

        median = np.median(logs, axis=0)
        deviation = median_abs_deviation(logs, scale="normal")  # pyright: ignore
        limit = np.maximum(np.log(OUTLIER_FACTOR), OUTLIER_DEVIATIONS * deviation)
    for report, spacing, log in zip(reports, spacings, logs, strict=True):
        by = " x ".join(f"{s:g}" for s in spacing)
        usual = [
            a <= s <= b for s, (a, b) in zip(spacing, USUAL_SPACING_MM, strict=True)
        ]
        if not all(usual):
            yield report, f"{by} mm (D x H x W) is unusual for CT"
        elif enough and (np.abs(log - median) > limit).any():
            middle = " x ".join(f"{s:g}" for s in np.exp(median).round(3))
            yield (
                report,
                f"{by} mm (D x H x W), the median of all is {middle}",
            )
