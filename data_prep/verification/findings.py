"""Measurements of one case in; its problems in words, errors and warnings, out.

Errors are what `prepare` refuses, from its own checks; all else is a warning.
"""

from collections.abc import Mapping, Sequence

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
