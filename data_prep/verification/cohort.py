"""Reports of all cases in; problems that only show between cases, by case, out."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_prep.verification.findings import problem

# Sharpest and coarsest spacing of CT in use, mm: slices, and pixels within them.
USUAL_SPACING_MM = ((0.2, 10.0), (0.2, 5.0), (0.2, 5.0))
# An outlier is off the median by this factor, and by so many deviations.
OUTLIER_FACTOR, OUTLIER_DEVIATIONS, FEWEST_CASES = 2.0, 5.0, 5
_SHOWN = 5


def across_cases(reports: Sequence[Mapping]) -> list[list[dict]]:
    """Duplicates and spacings unlike the others': the problems of each report."""
    found: dict[int, list[dict]] = defaultdict(list)
    read = [report for report in reports if "content" in report]
    for report, twins in _groups(read, "content"):
        others = [twin["case_id"] for twin in twins]
        real = os.path.realpath(report["image"])
        if all(os.path.realpath(twin["image"]) == real for twin in twins):
            text = f"the very file of {_listed(others)}: the same case twice"
        else:
            text = f"the same voxels as {_listed(others)}: keep one"
        found[id(report)].append(problem("duplicate_scan", text))
    for report, twins in _groups(read, "content_unordered"):
        turned = [t["case_id"] for t in twins if t["content"] != report["content"]]
        if turned:
            text = f"a mirrored or turned copy of {_listed(turned)}: keep one"
            found[id(report)].append(problem("duplicate_scan", text))
    labelled = [report for report in read if report.get("label_content")]
    for report, twins in _groups(labelled, "label_content"):
        others = [t["case_id"] for t in twins if t["content"] != report["content"]]
        if others:
            text = f"the label map is that of {_listed(others)}, the scan is not"
            found[id(report)].append(problem("duplicate_label", text))
    for report, text in _unusual_spacings(read):
        found[id(report)].append(problem("unusual_spacing", text))
    return [found[id(report)] for report in reports]


def _groups(
    reports: Sequence[Mapping], key: str
) -> Iterable[tuple[Mapping, list[Mapping]]]:
    """Each report that shares its `key`, with the others that do."""
    groups = defaultdict(list)
    for report in reports:
        groups[report[key]].append(report)
    for report in reports:
        if twins := [twin for twin in groups[report[key]] if twin is not report]:
            yield report, twins


def _unusual_spacings(reports: Sequence[Mapping]) -> Iterable[tuple[Mapping, str]]:
    spacings = np.array([report["spacing_mm"] for report in reports]).reshape(-1, 3)
    logs = np.log(spacings)
    enough = len(reports) >= FEWEST_CASES
    median = np.median(logs, axis=0) if enough else np.zeros(3)
    deviation = 1.4826 * np.median(np.abs(logs - median), axis=0) if enough else 0
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


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
