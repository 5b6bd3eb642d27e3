"""Examines one case: its row of verify.json and its pictures.

A pure function of the files, which runs in worker processes, one scan at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attunet_jax.errors import BadData, one_line
from attunet_jax.volume import (
    Volume,
    align_by_index,
    checks,
    different_grids,
    resampled_shape,
)
from data_prep.align import mirrored_axes
from data_prep.read import (
    label_counts,
    label_place,
    missing_half,
    passed_over,
    read_pair,
    unnamed_labels,
)
from data_prep.sources.layout import ScanPair
from data_prep.verification.findings import (
    ERROR,
    WARNING,
    image_findings,
    label_findings,
    problem,
)
from data_prep.verification.measure import (
    content,
    measure_image,
    measure_labels,
    merged,
)
from data_prep.verification.pictures import UNNAMED, Picture, case_pictures, colour
from data_prep.verification.repair import compare


@dataclass(frozen=True)
class Settings:
    """What the cases will be prepared with."""

    organs: Mapping[str, tuple[int, ...]] | None  # None: each label value is one
    spacing_mm: tuple[float, float, float]  # D, H, W
    ignore_unknown_labels: bool
    strict: bool = False  # doubts are errors


def examine(
    pair: ScanPair, settings: Settings, unlabelled: bool = False
) -> tuple[dict, list[Picture]]:
    """Returns the row of verify.json and three pictures.

    There are no pictures of a scan that cannot be read. `unlabelled`: the case has no
    label map by design. Whatever is wrong with the files is listed in `problems`;
    nothing is raised.
    """
    report: dict = {
        "case_id": pair.case_id,
        "image": None if pair.image is None else str(pair.image),
        "label": str(label_place(pair)) if pair.labelled else None,
        "problems": [],
    }
    problems = report["problems"]
    pictures: list[Picture] = []
    reason = None if unlabelled else missing_half(pair)
    if pair.unclear:
        problems.append(problem("unclear", pair.unclear, ERROR))
    elif reason:
        problems.append(problem("missing_half", reason, ERROR))
    if pair.image is not None:
        try:
            image, labels = _read(pair, settings, problems)
            if image is not None:
                if others := passed_over(pair):
                    report["passed_over"] = others
                other_labels = frozenset(pair.other_labels)
                pictures = _examine(image, labels, settings, other_labels, report)
        except MemoryError:
            text = f"{pair.image}: too large for the memory of this machine"
            problems.append(problem("unreadable", text, ERROR))
    problems.sort(key=lambda row: row["severity"] != ERROR)
    for row in problems:
        row["text"] = printable(row["text"])
    report["usable"] = not any(row["severity"] == ERROR for row in problems)
    return report, pictures


def printable(text: str) -> str:
    """The text on one line, with unprintable characters escaped."""
    return "".join(
        c if c.isprintable() else ascii(c)[1:-1] for c in one_line(Exception(text))
    )


def _read(
    pair: ScanPair, settings: Settings, problems: list[dict]
) -> tuple[Volume | None, Volume | None]:
    """Reads the image and, where possible, the labels; adds to `problems`."""
    organs = settings.organs
    if organs is None:
        organs = {f"label_{value}": (value,) for _, value in pair.masks}
    image_only = replace(pair, label=None, masks=(), label_by_index=False)
    for attempt in (pair, image_only) if pair.labelled else (pair,):
        try:
            return read_pair(attempt, organs)
        except BadData as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or pair.image}: {error.strerror or error}"
        if all(reason != row["text"] for row in problems):
            problems.append(problem("unreadable", reason, ERROR))
    return None, None


def _examine(
    image: Volume,
    labels: Volume | None,
    settings: Settings,
    other_labels: frozenset[int],
    report: dict,
) -> list[Picture]:
    """Fills `report` and returns the pictures.

    `other_labels` are values of the layout that are background.
    """
    problems = report["problems"]
    report |= measure_image(image)
    if refused := checks.refusal(image):
        text = f"{image.path}: {refused.text}"
        problems.append(problem(refused.kind, text, ERROR))
    else:
        problems += [_doubt(finding, settings) for finding in checks.doubts(image)]
    problems += image_findings(report)
    try:
        resampled_shape(image, settings.spacing_mm)
    except BadData as error:
        problems.append(problem("too_large", str(error), ERROR))
    if labels is None:
        return case_pictures(image, None, {})
    return _examine_labels(image, labels, settings, other_labels, report)


def _doubt(finding: checks.Finding, settings: Settings) -> dict:
    severity = ERROR if settings.strict else WARNING
    return problem(finding.kind, finding.text, severity)


def _examine_labels(
    image: Volume,
    labels: Volume,
    settings: Settings,
    other_labels: frozenset[int],
    report: dict,
) -> list[Picture]:
    """Does the same for the label map."""
    problems = report["problems"]
    counts = label_counts(labels.voxels)
    organs = settings.organs
    if organs is None:
        organs = {
            f"label_{value}": (value,)
            for value in counts
            if value not in {0, *other_labels}
        }
    if different_grids(image, labels):
        aligned = align_by_index(image, labels)
    else:
        aligned = labels
    report["mirrored"] = None
    in_hu = checks.in_hu(checks.doubts(image))
    if in_hu and aligned.voxels.shape == image.voxels.shape:
        report["mirrored"] = mirrored_axes(image, aligned.voxels, organs)
    report["geometry"] = compare(image, labels, report["mirrored"])
    if difference := report["geometry"]["difference"]:
        text = f"{difference}. Suggested fix: {report['geometry']['suggested_fix']}"
        problems.append(problem("different_grids", text, ERROR))
    elif report["mirrored"]:
        problems.append(_doubt(checks.mirrored(report["mirrored"]), settings))
    measured = measure_labels(aligned, counts, image)
    named = other_labels.union(*organs.values())
    report["organs"] = {
        name: merged([measured[value] for value in values if value in measured])
        for name, values in organs.items()
    }
    unknown = [value for value in measured if value not in named]
    report["unnamed_labels"] = {
        str(value): measured[value]["voxels"] for value in unknown
    }
    reason = unnamed_labels(counts, named, labels.path)
    if reason and not settings.ignore_unknown_labels:
        problems.append(problem("unnamed_labels", reason, ERROR))
    problems += label_findings(report["organs"])
    report["label_content"] = content(labels.voxels) if measured else None
    colours = organ_colours(organs)
    outlines = {
        value: colours[name] for name, values in organs.items() for value in values
    }
    if not settings.ignore_unknown_labels:
        outlines |= dict.fromkeys(unknown, UNNAMED)
    return case_pictures(image, aligned, outlines)


def organ_colours(organs: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Colours of outlines by organ.

    A label value without a name has the same colour in every case.
    """
    return {
        name: colour(values[0] - 1 if name == f"label_{values[0]}" else number)
        for number, (name, values) in enumerate(organs.items())
    }
