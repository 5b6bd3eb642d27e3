"""Measurements of one case in; its problems in words, errors and warnings, out.

Errors are what `prepare` refuses, from its own checks; all else is a warning.

Reports of all cases in; problems that only show between cases, by case, out.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

ERROR, WARNING = "error", "warning"
# Kinds of problems and what the summary calls them.
KINDS = {
    "unclear": "more files than one case can have",
    "missing_half": "image or label map missing",
    "unreadable": "cannot be read",
    "too_large": "spacing leads to an absurd size",
    "different_grids": "image and label map on different grids",
    "unnamed_labels": "label values without a name",
    "not_hu": "values that are not HU",
    "values_clipped": "values beyond 16 bits",
    "skewed": "axes not at right angles",
    "empty_label": "empty label map",
    "organ_missing": "organ missing",
    "touches_border": "organ touches the border of the scan",
    "not_tissue": "organ does not lie on soft tissue",
    "mirrored": "label map mirrored",
    "duplicate_scan": "same scan in several cases",
    "duplicate_label": "same label map for different scans",
    "unusual_spacing": "unusual spacing",
}
# Mean HU of an organ with or without contrast, ill or well, in a label map that fits.
TISSUE_HU = (-100, 400)
NOT_TISSUE = ("lung", "trachea", "airway", "bronch", "fat", "bone", "skull", "label_")
MOST_SKEW_DEGREES = 0.5
_AIR_HU = -500


def problem(kind: str, text: str, severity: str = WARNING) -> dict:
    """One row of `problems` in verify.json. `kind` is one of KINDS."""
    assert kind in KINDS
    return {"severity": severity, "kind": kind, "text": text}


def image_findings(report: Mapping) -> list[dict]:
    """Of a scan alone, from `measure_image`."""
    found = []
    if text := _not_hu(report["hu"]):
        found.append(problem("not_hu", text))
    elif report["hu"]["min"] < -32768 or report["hu"]["max"] > 32767:
        found.append(
            problem(
                "values_clipped",
                f"values from {report['hu']['min']} to {report['hu']['max']}: what is "
                "beyond -32768 to 32767 will be clipped",
            )
        )
    if report["skew_degrees"] > MOST_SKEW_DEGREES:
        found.append(
            problem(
                "skewed",
                f"axes are {report['skew_degrees']:g} degrees off right angles (gantry "
                "tilt?): shapes and distances will be distorted; straighten the scan",
            )
        )
    return found


def label_findings(organs: Mapping[str, Mapping]) -> list[dict]:
    """Of organs as `measure_labels` has them, whether they occur or not."""
    there = {name: organ for name, organ in organs.items() if organ["voxels"]}
    if not there:
        return [problem("empty_label", "no voxel belongs to any organ")]
    found = []
    if missing := [name for name in organs if name not in there]:
        found.append(problem("organ_missing", f"absent: {', '.join(missing)}"))
    cut_off = [
        f"{name} ({_and(organ['touches'])})"
        for name, organ in there.items()
        if organ["touches"]
    ]
    if cut_off:
        found.append(
            problem(
                "touches_border",
                f"at the border of the scan, maybe cut off: {', '.join(cut_off)}",
            )
        )
    elsewhere = [
        f"{name} ({organ['mean_hu']:g} HU)"
        for name, organ in there.items()
        if organ["mean_hu"] is not None
        and not TISSUE_HU[0] <= organ["mean_hu"] <= TISSUE_HU[1]
        and soft_tissue(name)
    ]
    if elsewhere:
        found.append(
            problem(
                "not_tissue",
                f"no soft tissue on average under {', '.join(elsewhere)}: is the label "
                "map flipped or of another scan, or the scan not in HU?",
            )
        )
    return found


def soft_tissue(organ: str) -> bool:
    """Whether an organ of that name is."""
    return not any(word in organ.lower() for word in NOT_TISSUE)


def mirrored_finding(axes: Sequence[str]) -> dict:
    """Of what `mirrored_axes` found in a label map on the grid of its image."""
    return problem(
        "mirrored",
        f"the organs lie on soft tissue far better with {' and '.join(axes)} of the "
        "label map flipped: compare the pictures, mend the label map",
    )


def _not_hu(hu: Mapping) -> str | None:
    """Air is near -1000 HU, and every scan holds some, around the patient or within."""
    low, high = hu["min"], hu["max"]
    span = f"values from {low:g} to {high:g}"
    if low == high:
        return f"every voxel is {low:g}"
    if low >= 0 and high <= 1:
        return f"{span}: scaled to [0, 1] or a mask, not HU; export the scan in HU"
    if low >= 0 and high <= 255:
        return f"{span}: an 8-bit picture, not HU; export the scan in HU"
    if max(abs(low), abs(high)) < 30:
        return f"{span}: normalised, not HU; export the scan in HU"
    if low >= 0:
        return (
            f"{span}, none below 0: most likely stored without the offset of 1024; "
            "subtract it (air is -1000 HU)"
        )
    if low > _AIR_HU:
        return (
            f"{span}, no air (-1000 HU): cut to a window or not HU; networks see "
            "other values than in whole scans"
        )
    return None


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


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
