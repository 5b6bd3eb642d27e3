"""Scores one pair of label maps; a pure function of files, for worker processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData, one_line
from attunet_jax.evaluate.journal import made_by
from attunet_jax.evaluate.label_maps.find import Pair
from attunet_jax.evaluate.label_maps.meaning import Meaning, Organ
from attunet_jax.evaluate.label_maps.read import read_label_map, read_pair
from attunet_jax.evaluate.metrics import measure_case
from attunet_jax.evaluate.surface import Definition
from attunet_jax.files import files_sha256
from attunet_jax.storage.names import shown
from attunet_jax.volume import Volume, checks, different_grids, read_scan

_PLACES = ("truth_file", "prediction_file")


@dataclass(frozen=True)
class Settings:
    """What decides a row besides the two files."""

    meaning: Meaning
    resample: bool = False
    definition: Definition = "mesh"


@dataclass(frozen=True)
class Picture:
    """A picture to draw, and the scan to draw on."""

    path: Path
    scan: Path
    series: str | None = None


@dataclass(frozen=True)
class Scored:
    """The rows of a case, or why there are none; `notes` are of its picture."""

    rows: tuple[dict, ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()


def score_pair(
    pair: Pair,
    settings: Settings,
    done: Sequence[dict] = (),
    picture: Picture | None = None,
) -> Scored:
    """Scores a pair, unless `done` has its rows; draws its picture where it lacks one.

    What is wrong with the files is returned in a line; nothing is raised.
    """
    try:
        stamps = _stamps(pair, settings)
        rows = _standing(stamps, done)
        undrawn = picture if picture and not picture.path.exists() else None
        if rows and not undrawn:
            return Scored(rows)
        truth, prediction, resampled = read_pair(
            pair, settings.meaning, resample=settings.resample
        )
        if not rows:
            rows = _measured(truth, prediction, resampled, settings, stamps)
            undrawn = picture
        notes = _drawn(undrawn, truth, prediction, settings, rows) if undrawn else ()
        return Scored(rows, notes=notes)
    except BadData as error:
        return Scored(error=one_line(error))
    except OSError as error:
        path = error.filename or pair.prediction.path
        return Scored(error=f"{path}: cannot be read ({error.strerror or error})")
    except MemoryError:
        return Scored(
            error=f"{pair.truth.path}: too large for the memory of this machine"
        )


def values_of(pair: Pair) -> tuple[list[int], list[int], str | None]:
    """Returns the values in the truth and in the prediction, or why not, in a line."""
    found = []
    for file in (pair.truth, pair.prediction):
        try:
            found.append(_values(read_label_map(file)))
        except (BadData, OSError, MemoryError) as error:
            return [], [], one_line(error)
    return found[0], found[1], None


def measure(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: np.ndarray,
    meaning: Meaning,
    known: np.ndarray | None = None,
    definition: Definition = "mesh",
) -> list[dict]:
    """Returns `measure_case`'s rows with `scored_vox`, in the order of the organs.

    `truth` and `prediction` `[D, H, W]` hold their own values. Voxels of the truth that
    the meaning ignores, or that are not `known`, count in no score.
    """
    if meaning.ignored:
        here = ~np.isin(truth, meaning.ignored)
        known = here if known is None else known & here
    scored_vox = truth.size if known is None else int(np.count_nonzero(known))
    rows: dict[str, dict] = {}
    for group in disjoint(meaning.organs):
        numbers = {organ.name: n for n, organ in enumerate(group, start=1)}
        of_truth = _numbered(truth, [organ.truth for organ in group])
        of_prediction = _numbered(prediction, [organ.prediction for organ in group])
        for row in measure_case(
            of_truth, of_prediction, spacing_mm, numbers, known, definition=definition
        ):
            rows[row["organ"]] = {**row, "scored_vox": scored_vox}
    return [rows[organ.name] for organ in meaning.organs]


def disjoint(organs: Iterable[Organ]) -> list[list[Organ]]:
    """Divides organs into groups in which no two share a value.

    nnU-Net's regions overlap: a whole tumour holds its core.
    """
    groups: list[list[Organ]] = []
    for organ in organs:
        free = (g for g in groups if not any(_overlap(organ, other) for other in g))
        group = next(free, None)
        if group is None:
            groups.append([organ])
        else:
            group.append(organ)
    return groups


def _overlap(a: Organ, b: Organ) -> bool:
    return bool({*a.truth} & {*b.truth} or {*a.prediction} & {*b.prediction})


def _numbered(labels: np.ndarray, values_of: Sequence[tuple[int, ...]]) -> np.ndarray:
    """1, 2, ... for the values of each organ, 0 for others."""
    largest = int(labels.max(initial=0))
    table = np.zeros(largest + 1, np.uint8 if len(values_of) < 256 else np.uint16)
    for number, values in enumerate(values_of, start=1):
        for value in values:
            if value <= largest:
                table[value] = number
    return table[labels]


def _values(volume: Volume) -> list[int]:
    largest = int(volume.voxels.max())
    counts = np.zeros(largest + 1, np.int64)
    for part in volume.voxels:  # np.bincount converts its input to 8-byte integers
        counts += np.bincount(part.ravel(), minlength=largest + 1)
    return np.flatnonzero(counts).tolist()


def _stamps(pair: Pair, settings: Settings) -> list[dict]:
    """What made the row of each organ: in it, so that it is made again for another."""
    sums = {
        "truth_sha256": files_sha256(pair.truth.files),
        "prediction_sha256": files_sha256(pair.prediction.files),
    }
    meaning = settings.meaning
    return [
        {
            "case_id": pair.case_id,
            "organ": organ.name,
            "truth_file": shown(pair.truth.path),
            "prediction_file": shown(pair.prediction.path),
            **sums,
            "truth_values": list(organ.truth),
            "prediction_values": list(organ.prediction),
            "ignored_values": list(meaning.ignored),
            "resample": settings.resample,
            "grid": "scan",
            "definition": settings.definition,
        }
        for organ in meaning.organs
    ]


def _standing(stamps: Sequence[dict], done: Sequence[dict]) -> tuple[dict, ...]:
    """The rows of `done` if all are of these files, wherever they lie, and settings."""
    rows = []
    for stamp in stamps:
        wanted = {key: v for key, v in stamp.items() if key not in _PLACES}
        row = next((row for row in done if made_by(row, wanted)), None)
        if row is None:
            return ()
        rows.append({**row, **stamp})
    return tuple(rows)


def _measured(
    truth: Volume,
    prediction: Volume,
    resampled: bool,
    settings: Settings,
    stamps: Sequence[dict],
) -> tuple[dict, ...]:
    rows = measure(
        truth.voxels,
        prediction.voxels,
        # Without the rounding noise of a header.
        truth.spacing_mm.round(6),
        settings.meaning,
        definition=settings.definition,
    )
    unnamed = _unnamed(truth, prediction, settings.meaning)
    return tuple(
        {
            "case_id": stamp["case_id"],
            **row,
            **stamp,
            "resampled": resampled,
            "unnamed_values": unnamed,
        }
        for row, stamp in zip(rows, stamps, strict=True)
    )


def _unnamed(
    truth: Volume, prediction: Volume, meaning: Meaning
) -> dict[str, list[int]]:
    """Values of each side that no organ has: scored as background."""
    of_truth = {value for organ in meaning.organs for value in organ.truth}
    of_prediction = {value for organ in meaning.organs for value in organ.prediction}
    named = {"truth": {*of_truth, *meaning.ignored}, "prediction": of_prediction}
    return {
        side: [v for v in _values(volume) if v and v not in named[side]]
        for side, volume in (("truth", truth), ("prediction", prediction))
    }


def _drawn(
    picture: Picture,
    truth: Volume,
    prediction: Volume,
    settings: Settings,
    rows: Sequence[dict],
) -> tuple[str, ...]:
    """Draws the picture; returns a line where the scan cannot be drawn on."""
    from attunet_jax.evaluate.pictures import overlay_png  # late: imports Matplotlib

    try:
        scan = read_scan(picture.scan, picture.series)
    except BadData as error:
        return (f"no picture: {one_line(error)}",)
    if different_grids(scan, truth):
        return (f"no picture: {picture.scan} is not on the grid of its truth",)
    if finding := checks.refusal(scan):
        return (f"no picture: {picture.scan} is {finding.text}",)
    # Of regions that overlap, those that share no voxel are drawn.
    group = disjoint(settings.meaning.organs)[0]
    dice = ", ".join(
        f"{row['organ']} {row['dice']:.2f}" for row in rows if row["dice"] is not None
    )
    picture.path.parent.mkdir(parents=True, exist_ok=True)
    picture.path.unlink(missing_ok=True)
    overlay_png(
        picture.path,
        scan.voxels,
        _numbered(truth.voxels, [organ.truth for organ in group]),
        _numbered(prediction.voxels, [organ.prediction for organ in group]),
        scan.spacing_mm,
        {organ.name: n for n, organ in enumerate(group, start=1)},
        f"{rows[0]['case_id']}: Dice {dice}",
    )
    return ()
