"""Checks whether a scan can be a CT in HU; prepare, predict and verify ask.

What cannot be one (a label map, one constant, an 8-bit picture) is refused. What may be
one (values of another unit or range, a header that programs read differently, a label
map that fits better mirrored) is a doubt: a warning, refused as well where the user
asks for it. The values in question are those of the file, before any is clipped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.volume import Stored, Volume

# Kinds of findings, with their names in summaries.
REFUSED = {
    "constant": "one value everywhere",
    "label_map": "a label map instead of a scan",
    "picture": "an 8-bit picture instead of a scan",
}
DOUBTED = {
    "range_255": "values from 0 to 255, as in a picture",
    "other_units": "values of another unit than HU",
    "no_air": "no air: cut to a window, or not HU",
    "placement": "header that programs read differently",
    "mirrored": "label map mirrored",
}
# A scan has hundreds of values and noise. A file of so few whole ones holds labels...
_FEW_VALUES = 16
# ... and so does one of more where most neighbours off the background are equal (0.8
# and more in label maps, 0.1 in scans), and the others mostly differ by a large step:
# in smooth 8-bit pictures most are equal too, but for steps of one or two.
_EQUAL_NEIGHBOURS = 0.6
_SMALL_STEP, _SMALL_STEPS = 0.02, 0.5  # of the range; of the unequal pairs
_SLABS = 12  # of two slices each, where neighbours are compared
# Air is near -1000 HU, and every scan contains some, around or inside the patient.
_AIR_HU = -500
_NO_FAT_HU, _BONE_HU = -60, 1000
# Values of smaller size are no HU: fat and muscle lie 150 HU apart.
_NORMALISED = 30
_CASES_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """What is wrong: `kind` is one of REFUSED or DOUBTED, `text` has no file name."""

    kind: str
    text: str


def checked(volume: Volume, *, strict: bool = False) -> list[Finding]:
    """Returns the doubts about a scan.

    Raises `BadData` where it cannot be a CT, and with `strict` for the first doubt.
    """
    if finding := refusal(volume):
        raise BadData(f"{volume.path}: {finding.text}")
    found = doubts(volume)
    if strict and found:
        raise BadData(f"{volume.path}: {found[0].text} (refused by --strict)")
    return found


def refusal(volume: Volume) -> Finding | None:
    """Returns why a scan cannot be a CT, or None."""
    stored = _stored(volume)
    low, high = stored.low, stored.high
    span = f"values from {low:g} to {high:g}"
    if stored.lowest == high:
        return Finding("constant", f"every voxel is {high:g}; export the scan again")
    if stored.lowest >= -1 and is_label_map(volume.voxels):
        text = f"a label map ({span} in areas of one value); give the scan itself"
        return Finding("label_map", text)
    if stored.type in ("uint8", "int8") and stored.lowest >= -128 and high <= 255:
        text = f"an 8-bit picture ({span}), not HU; export the scan in HU"
        return Finding("picture", text)
    return None


def doubts(volume: Volume) -> list[Finding]:
    """Returns the doubts about a scan that `refusal` does not refuse."""
    found = [_values_doubt(_stored(volume))]
    if placement := volume.grid.placement:
        text = placement.doubt(volume.grid.shape, volume.grid.affine)
        found.append(Finding("placement", text) if text else None)
    return [finding for finding in found if finding]


def in_hu(found: Iterable[Finding]) -> bool:
    """Returns whether the doubts about a scan leave its values in HU."""
    return not {"range_255", "other_units"} & {finding.kind for finding in found}


def mirrored(axes: Sequence[str]) -> Finding:
    """Returns the doubt about a label map that fits better with `axes` flipped."""
    return Finding(
        "mirrored",
        f"the organs lie on soft tissue far better with {' and '.join(axes)} of the "
        "label map flipped: compare the pictures, correct the label map",
    )


def grouped(found: Mapping[str, Iterable[Finding]]) -> list[str]:
    """Returns one line for each kind of doubt, from those of each case by name."""
    lines = []
    for kind, title in DOUBTED.items():
        texts = {
            name: finding.text
            for name, findings in found.items()
            for finding in findings
            if finding.kind == kind
        }
        if texts:
            names = list(texts)
            more = len(names) - _CASES_NAMED
            shown = ", ".join(names[:_CASES_NAMED]) + (f", {more} more" * (more > 0))
            lines.append(
                f"warning: {title}: {len(names)} ({shown}); {names[0]}: "
                f"{texts[names[0]]}"
            )
    return lines


def _stored(volume: Volume) -> Stored:
    if volume.stored is not None:
        return volume.stored
    return Stored.of(volume.voxels, volume.voxels.dtype.name)


def _values_doubt(stored: Stored) -> Finding | None:
    low, high = stored.low, stored.high
    span = f"values from {low:g} to {high:g}"
    if max(abs(low), abs(high)) < _NORMALISED:
        unit = "scaled to [0, 1]" if low >= 0 and high <= 1 else "normalised"
        if -1.1 <= low <= -0.9 and 1 <= high:
            unit = "HU / 1000, or normalised"
        text = f"{span}: {unit}, not HU; export the scan in HU"
        return Finding("other_units", text)
    if low >= 0 and high <= 255:
        text = f"{span}: most likely an 8-bit picture, not HU; export the scan in HU"
        return Finding("range_255", text)
    if low >= 0 or (low > _NO_FAT_HU and high > _BONE_HU):
        return Finding(
            "other_units",
            f"{span}, neither air nor fat: most likely stored without the offset of "
            "1024; subtract it (air is -1000 HU)",
        )
    if low > _AIR_HU:
        return Finding(
            "no_air",
            f"{span}, no air (-1000 HU): cut to a window or not HU; networks see other "
            "values than in whole scans",
        )
    return None


def is_label_map(voxels: np.ndarray) -> bool:
    """Returns whether `voxels [D, H, W]`, none below -1, are whole and in areas."""
    starts = np.unique(np.linspace(0, max(len(voxels) - 2, 0), _SLABS).astype(int))
    slabs = [voxels[start : start + 2] for start in starts]
    values, counts = np.unique(np.concatenate(slabs), return_counts=True)
    if values.dtype.kind == "f" and not (np.rint(values) == values).all():
        return False
    if len(values) <= _FEW_VALUES:
        return True
    # Pictures are often cut at both ends, and what surrounds the body is equal anyway.
    background = [values[0], values[-1], values[counts.argmax()]]
    small_step = max(1.0, _SMALL_STEP * float(values[-1] - values[0]))
    for axis in range(3):
        equal = small = pairs = 0
        for slab in slabs:
            along = np.moveaxis(slab, axis, 0)
            first, second = along[:-1], along[1:]
            kept = ~(np.isin(first, background) & np.isin(second, background))
            steps = np.abs(first[kept].astype(np.int64) - second[kept])
            equal += int((steps == 0).sum())
            small += int(((steps > 0) & (steps <= small_step)).sum())
            pairs += steps.size
        if equal < _EQUAL_NEIGHBOURS * pairs or small > _SMALL_STEPS * (pairs - equal):
            return False
    return True
