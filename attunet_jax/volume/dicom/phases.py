"""Tells apart the scans that share a series: phases, acquisitions, reconstructions.

Slices of one series may be several scans on the same positions. They are told apart by
a tag with one value for each scan (AcquisitionNumber, ...), else by the time, else by
the order of InstanceNumber. A way is taken only where it gives whole scans.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.dicom.series import SliceHeader
from attunet_jax.volume.dicom.stack import heights_of, stack

# Tags with one value for each scan, and how the value is written in a scan's name.
VALUES = {
    "AcquisitionNumber": "acq",
    "TemporalPositionIdentifier": "phase",
    "TemporalPositionIndex": "phase",
    "NominalPercentageOfCardiacPhase": "phase",
    "AcquisitionDateTime": "t",
    "AcquisitionTime": "t",
    "ContentTime": "t",
    "KVP": "kv",
    "ConvolutionKernel": "",
    "SliceThickness": "thick",
    "ImageType": "",
    "StackID": "stack",
    "SeriesTime": "t",
}
# Tags that grow from slice to slice within a scan, and from scan to scan.
ORDERS = {
    "AcquisitionDateTime": "t",
    "AcquisitionTime": "t",
    "ContentTime": "t",
    "InstanceNumber": "part",
}
_FEWEST = 3  # slices of a scan among several
_Parts = dict[str, list[SliceHeader]]


def phases(folder: Path, headers: Sequence[SliceHeader]) -> tuple[str, _Parts] | None:
    """Divides alike slices of a series into scans.

    Returns the tag that tells them apart, and the slices of each by its name, such as
    "acq2". A part that is not `is_several` is no scan; one that is not whole is a scan
    that cannot be read. None where no tag tells them apart.
    """
    for tag in VALUES:
        parts = _by_value(headers, tag)
        if _acceptable(folder, parts):
            return tag, parts
    for way in (_runs, _ranks):
        for tag in ORDERS:
            parts = _in_order(headers, tag, way)
            if _acceptable(folder, parts, least=0.5):
                return tag, parts
    return None


def interleaved(
    folder: Path, headers: Sequence[SliceHeader]
) -> tuple[str, _Parts] | None:
    """Divides slices that are whole together, and by AcquisitionNumber too.

    Two acquisitions half a slice apart look like one scan of thinner slices.
    """
    tag = "AcquisitionNumber"
    parts = _by_value(headers, tag)
    if len(parts) < 2 or not all(map(is_several, parts.values())):
        return None
    spans = [_span(part) for part in parts.values()]
    if not all(_overlap(a, b) for a, b in combinations(spans, 2)):
        return None
    return (tag, parts) if _acceptable(folder, parts) else None


def is_several(headers: Sequence[SliceHeader]) -> bool:
    """Returns whether slices lie at enough positions to be one of several scans."""
    return len({round(height, 2) for height in heights_of(headers).tolist()}) >= _FEWEST


def is_whole(folder: Path, headers: Sequence[SliceHeader]) -> bool:
    """Returns whether slices are a scan that can be read."""
    try:
        stack(folder, headers)
    except BadData:
        return False
    return True


def _acceptable(folder: Path, parts: _Parts, least: float = 0) -> bool:
    """Whether parts are scans: alike or one whole, that overlap or lie apart.

    They overlap by `least` as a share of the shorter one. Parts that lie one behind the
    other are pieces of one scan, as rotations of a scanner are, unless there is a gap
    between any two of them.
    """
    scans = [part for part in parts.values() if is_several(part)]
    if len(parts) < 2 or 2 * sum(map(len, scans)) <= sum(map(len, parts.values())):
        return False
    if any(_repeats(part) for part in scans):
        return False
    # Alike parts may all be refused for a reason of their own, such as a tilted gantry.
    alike = len({len(part) for part in scans}) == 1
    if not alike and not any(is_whole(folder, part) for part in scans):
        return False
    spans = sorted(_span(part) for part in parts.values())
    if any(_overlap(a, b, least) for a, b in combinations(spans, 2)):
        return True
    steps = [np.diff(np.sort(heights_of(part))).max() for part in scans]
    apart = [b[0] - a[1] for a, b in zip(spans[:-1], spans[1:], strict=True)]
    return min(apart) > 1.5 * max(steps)


def _span(part: Sequence[SliceHeader]) -> tuple[float, float]:
    heights = heights_of(part)
    return float(heights.min()), float(heights.max())


def _overlap(a: tuple[float, float], b: tuple[float, float], least: float = 0) -> bool:
    both = min(a[1], b[1]) - max(a[0], b[0])
    return both >= least * min(a[1] - a[0], b[1] - b[0])


def _repeats(part: Sequence[SliceHeader]) -> bool:
    """Whether two slices lie at one position."""
    gaps = np.diff(np.sort(heights_of(part)))
    return bool(gaps.min() <= 0.1 * np.median(gaps))


def _by_value(headers: Sequence[SliceHeader], tag: str) -> _Parts:
    found: _Parts = {}
    for header in headers:
        found.setdefault(header.marks.get(tag, ""), []).append(header)
    in_order = sorted(found.items(), key=lambda item: _natural(item[0]))
    return _named([(VALUES[tag] + value, part) for value, part in in_order])


def _in_order(
    headers: Sequence[SliceHeader],
    tag: str,
    way: Callable[[list[SliceHeader]], list[list[SliceHeader]]],
) -> _Parts:
    if not all(header.marks.get(tag) for header in headers):
        return {}
    heights = dict(zip(map(id, headers), heights_of(headers).tolist(), strict=True))
    ordered = sorted(
        headers,
        key=lambda h: (
            *_natural(h.marks[tag]),
            *_natural(h.marks.get("InstanceNumber", "")),
            heights[id(h)],
        ),
    )
    parts = way(ordered)
    names = [
        f"{ORDERS[tag]}{part[0].marks[tag] if ORDERS[tag] == 't' else number}"
        for number, part in enumerate(parts, start=1)
    ]
    return _named(list(zip(names, parts, strict=True)))


def _runs(ordered: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Cuts slices where the table stops or turns back."""
    heights = heights_of(ordered)
    parts: list[list[SliceHeader]] = [[ordered[0]]]
    direction = 0.0
    for header, moved in zip(ordered[1:], np.diff(heights), strict=True):
        sign = float(np.sign(np.round(moved, 3)))
        if sign == 0 or (direction and sign != direction):
            parts.append([header])
            direction = 0.0
        else:
            parts[-1].append(header)
            direction = sign
    return parts


def _ranks(ordered: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Takes the first slice of each position, then the second of each, and so on."""
    at: dict[float, list[SliceHeader]] = {}
    for header, height in zip(ordered, heights_of(ordered), strict=True):
        at.setdefault(round(float(height), 2), []).append(header)
    counts = {len(slices) for slices in at.values()}
    if len(counts) != 1:
        return [ordered]
    return [[slices[k] for slices in at.values()] for k in range(counts.pop())]


def _named(parts: list[tuple[str, list[SliceHeader]]]) -> _Parts:
    """The parts by names of letters, digits and dots, each its own."""
    named: _Parts = {}
    for name, part in parts:
        plain = "".join(
            c if c.isascii() and (c.isalnum() or c == ".") else "" for c in name
        )
        number, unique = 2, plain or "other"
        while unique in named:
            unique = f"{plain or 'other'}-{number}"
            number += 1
        named[unique] = part
    return named


def _natural(text: str) -> tuple[float, str]:
    """Numbers by their value, other text after them."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
