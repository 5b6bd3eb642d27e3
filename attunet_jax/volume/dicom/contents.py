"""Finds the CT scans among the DICOM files of a folder, and names what is passed over.

A folder may hold several series, and a series several scans. Files that are no slice of
a scan (reports, localizers, screen captures, copies) are counted by kind and passed
over, where the scan is whole without them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom.files import dicom_files, dicom_folders
from attunet_jax.volume.dicom.phases import interleaved, is_several, phases
from attunet_jax.volume.dicom.series import (
    PLACELESS,
    SliceHeader,
    dicom_errors,
    header_of,
    no_ct_slice,
    read_dataset,
)
from attunet_jax.volume.dicom.stack import alike_groups, heights_of, stack

_Files = list[tuple[Path, pydicom.FileDataset]]
_PLANES = ("sagittal", "coronal", "axial")  # by the axis of the normal, LPS
_SAME_PLACE_MM = 1e-2
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class DicomScan:
    """One scan of a folder, with its slices in the order of file names.

    `part` names it where its series holds several, and `told_by` is the tag that tells
    them apart. `problem` says why it cannot be read, if so.
    """

    uid: str
    number: str
    description: str
    headers: list[SliceHeader]
    count: int = 0  # of slices, those that cannot be read included
    part: str = ""
    told_by: str = ""
    problem: BadData | None = None

    @property
    def key(self) -> str:
        """What --series takes: UID, or UID:PART."""
        return f"{self.uid}:{self.part}" if self.part else self.uid


@dataclass
class Contents:
    """The scans of a folder by series, and how many files of each kind are none."""

    scans: list[DicomScan] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def names(self) -> list[str]:
        """Returns a name for each scan, which tells it from the others; "" for one."""
        if len(self.scans) == 1:
            return [""]
        series = {scan.uid: scan.number for scan in self.scans}
        numbered = all(series.values()) and len({*series.values()}) == len(series)
        names = []
        for scan in self.scans:
            own = f"series{scan.number}" if numbered else scan.uid
            words = ([own] if len(series) > 1 else []) + ([scan.part] * bool(scan.part))
            names.append("_".join(words) or "other")
        return names


def contents(folder: Path) -> Contents:
    """Reads the headers of all DICOM files directly in `folder`.

    What is found is kept for the next call, as long as no file changes. Raises
    `BadData` naming a file that is damaged.
    """
    files = dicom_files(folder)
    try:
        status = [path.stat() for path in files]
    except OSError as error:
        raise BadData(f"{error.filename}: cannot be read ({error.strerror})") from error
    times = tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in status)
    return _contents(folder, tuple(files), times)


@lru_cache(maxsize=2)
def _contents(folder: Path, paths: tuple[Path, ...], _: tuple) -> Contents:
    found = Contents()
    series: dict[str, _Files] = {}
    for path in paths:
        dataset = read_dataset(path, headers_only=True)
        if reason := no_ct_slice(path, dataset):
            found.passed_over[reason] += 1
        else:
            uid = _text(path, dataset, "SeriesInstanceUID")
            series.setdefault(uid, []).append((path, dataset))
    for uid, files in sorted(series.items()):
        found.scans += _scans_of_series(folder, uid, files, found.passed_over)
    return found


def choose(
    folder: Path, found: Contents, series: str | None, one_of: Collection[str] = ()
) -> DicomScan:
    """Returns the one scan that is meant.

    `series` is its UID, part, UID:PART or name. Without it the folder holds one scan
    only, or exactly one that `one_of` names. Raises `BadData` where it is none or
    several, and the scan's own `problem`.
    """
    scans = found.scans
    if series is not None:
        scans = matching(found, series)
        if not scans:
            raise BadData(f"{folder}: no CT series {series} in it{_listed(found)}")
    elif not scans:
        raise BadData(
            f"{folder}: no slices of a CT series in it{_instead(folder, found)}"
        )
    elif len(scans) > 1:
        named = [scan for text in one_of for scan in matching(found, text)]
        scans = named if len(named) == 1 else scans
    if len(scans) > 1:
        count = len({scan.uid for scan in scans})
        if count > 1:
            raise BadData(
                f"{folder}: {count} series in one folder{_listed(found)}; ask for one "
                "by --series=UID, or move them apart"
            )
        raise BadData(
            f"{folder}: {len(scans)} scans in one series, told apart by "
            f"{scans[0].told_by}{_listed(found)}; ask for one by "
            f"--series={scans[0].part}, or move them apart"
        )
    (scan,) = scans
    if scan.problem is not None:
        raise scan.problem
    return scan


def matching(found: Contents, text: str) -> list[DicomScan]:
    """Returns the scans that `text` names: all of a series, or one."""
    return [
        scan
        for scan, name in zip(found.scans, found.names(), strict=True)
        if text and text in (scan.uid, scan.key, scan.part, name)
    ]


def _scans_of_series(
    folder: Path, uid: str, files: _Files, passed_over: Counter[str]
) -> list[DicomScan]:
    placed = [file for file in files if any(name in file[1] for name in _PLACE)]
    if 0 < len(placed) < len(files):
        counts: Counter[str] = Counter()
        scans = _scans_of_series(folder, uid, placed, counts)
        if all(scan.problem is None for scan in scans):
            counts[PLACELESS] += len(files) - len(placed)
            passed_over.update(counts)
            return scans
    number, description = (
        _text(*files[0], tag) for tag in ("SeriesNumber", "SeriesDescription")
    )
    whole = DicomScan(uid, number, description, [])
    try:
        headers = [header_of(path, dataset) for path, dataset in files]
    except BadData as error:
        return [replace(whole, count=len(files), problem=error)]
    headers = _without_copies(headers, passed_over)
    groups = alike_groups(headers)
    if len(groups) == 1:
        return _scans_of_group(folder, whole, headers, passed_over)
    return _scans_of_groups(folder, whole, groups, passed_over)


def _text(path: Path, dataset: pydicom.FileDataset, tag: str) -> str:
    with dicom_errors(path):
        return str(dataset.get(tag) or "")


def _scans_of_groups(
    folder: Path,
    whole: DicomScan,
    groups: list[list[SliceHeader]],
    passed_over: Counter[str],
) -> list[DicomScan]:
    """The scans of groups of different size, spacing or direction.

    A few slices of their own are strays where they could be no slice of a scan that is
    whole: along another direction, or at the place of one of its slices.
    """
    counts: Counter[str] = Counter()
    several = [group for group in groups if is_several(group)]
    names = _group_names(several)
    scans = [
        scan if len(several) == 1 else replace(scan, **_named(scan, name))
        for group, name in zip(several, names, strict=True)
        for scan in _scans_of_group(folder, whole, group, counts)
    ]
    sound = bool(scans) and all(scan.problem is None for scan in scans)
    for group in groups:
        if group in several:
            continue
        if any(_crosses(group[0], other[0]) for other in several):
            counts["pictures along another direction (scouts)"] += len(group)
        elif all(_at_a_slice(header, several) for header in group):
            counts["pictures of another size at the place of a slice"] += len(group)
        else:
            sound = False
    if sound:
        passed_over.update(counts)
        return scans
    together = [header for group in groups for header in group]
    return [_scan(folder, whole, together)]


def _scans_of_group(
    folder: Path,
    whole: DicomScan,
    headers: list[SliceHeader],
    passed_over: Counter[str],
) -> list[DicomScan]:
    """The scans of alike slices: one, or several at the same positions."""
    one = _scan(folder, whole, headers)
    find = interleaved if one.problem is None else phases
    found = find(folder, headers) if len(headers) > 2 else None
    if found is None:
        return [one]
    tag, parts = found
    scans = []
    for name, part in parts.items():
        if is_several(part):
            scan = _scan(folder, whole, part)
            scans.append(replace(scan, part=name, told_by=tag))
        else:
            passed_over["slices of another acquisition"] += len(part)
    return scans if len(scans) > 1 else [replace(scans[0], part="", told_by="")]


def _scan(folder: Path, whole: DicomScan, headers: list[SliceHeader]) -> DicomScan:
    problem = None
    try:
        stack(folder, headers)
    except BadData as error:
        problem = error
    return replace(whole, headers=headers, count=len(headers), problem=problem)


def _named(scan: DicomScan, name: str) -> dict[str, str]:
    return {
        "part": f"{name}_{scan.part}" if scan.part else name,
        "told_by": scan.told_by or "direction, size or spacing",
    }


def _group_names(groups: Sequence[Sequence[SliceHeader]]) -> list[str]:
    """Names groups by their plane, size or spacing, whichever tells them apart."""
    firsts = [group[0] for group in groups]
    ways = [
        [_plane(header) for header in firsts],
        [f"{header.rows}x{header.columns}" for header in firsts],
        [f"{header.spacing_mm[0]:.4g}mm" for header in firsts],
    ]
    for names in ways:
        if len({*names}) == len(names):
            return names
    return [f"part{number}" for number in range(1, len(groups) + 1)]


def _plane(header: SliceHeader) -> str:
    return _PLANES[int(np.abs(np.cross(*header.orientation)).argmax())]


def _crosses(a: SliceHeader, b: SliceHeader) -> bool:
    """Whether the planes of two slices are not parallel."""
    cosine = abs(float(np.cross(*a.orientation) @ np.cross(*b.orientation)))
    return cosine < 0.99


def _at_a_slice(header: SliceHeader, groups: Sequence[list[SliceHeader]]) -> bool:
    for group in groups:
        height = float(header.position @ np.cross(*group[0].orientation))
        if np.abs(heights_of(group) - height).min() <= _SAME_PLACE_MM:
            return True
    return False


def _without_copies(
    headers: list[SliceHeader], passed_over: Counter[str]
) -> list[SliceHeader]:
    """Leaves out slices of the same place, tags and pixels as one before them."""
    kept: list[SliceHeader] = []
    at: dict[tuple, list[SliceHeader]] = {}
    for header in headers:
        place = (*np.round(header.position, 3).tolist(), header.rows, header.columns)
        alike = at.setdefault(place, [])
        if any(_is_copy(header, other) for other in alike):
            passed_over["copies of slices"] += 1
            continue
        alike.append(header)
        kept.append(header)
    return kept


def _is_copy(a: SliceHeader, b: SliceHeader) -> bool:
    if a.instance != b.instance and a.marks != b.marks:
        return False
    if (a.slope, a.intercept, a.syntax) != (b.slope, b.intercept, b.syntax):
        return False
    if len(alike_groups([a, b])) > 1:
        return False
    pixels = [
        read_dataset(header.path, headers_only=False).get("PixelData")
        for header in (a, b)
    ]
    return pixels[0] is not None and pixels[0] == pixels[1]


def _listed(found: Contents) -> str:
    rows = [
        f"{scan.key or '(no UID)'} ({scan.count} slices, "
        f"{scan.description or 'no description'!r})"
        for scan in found.scans
    ]
    return ": " + ", ".join(rows) if rows else ""


def _instead(folder: Path, found: Contents) -> str:
    """Says what the folder holds instead of slices."""
    if found.passed_over:
        kinds = found.passed_over.items()
        return ", only " + ", ".join(f"{n} {what}" for what, n in kinds)
    below = [str(place.relative_to(folder)) for place in dicom_folders(folder)]
    if below:
        return f", but below, in {', '.join(below[:5])}; name or keep one of these"
    return "; name the folder of its files"
