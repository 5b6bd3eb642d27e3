"""Prepares one case: reads, checks, relabels and resamples a scan and its labels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from attunet_jax.data.labels import IGNORED, LabelMap
from attunet_jax.data.records import Case
from attunet_jax.errors import BadData
from attunet_jax.files import sha256
from attunet_jax.intensity import (
    HU_RANGE,
    HuHistogram,
    HuLevels,
    HuStatistics,
)
from attunet_jax.volume import (
    as_ct,
    blur,
    checks,
    different_grids,
    patient_id,
    resample,
)
from data_prep.align import mirrored_axes
from data_prep.patients import patient_digest
from data_prep.read import (
    image_files,
    label_counts,
    label_files,
    missing_half,
    passed_over,
    read_pair,
    unnamed_labels,
)
from data_prep.sources.layout import ScanPair


@dataclass(frozen=True)
class Settings:
    """Everything besides its files that decides the bytes of a case."""

    organs: Mapping[str, tuple[int, ...]]  # organ -> label values in the files
    spacing_mm: tuple[float, float, float]  # D, H, W
    blur_mm: float
    ignore_unknown_labels: bool
    # Values outside are padding and metal; data prepared before there was a range keep
    # theirs as stored.
    hu_range: tuple[int, int] = HU_RANGE
    ignored: tuple[int, ...] = ()  # label values in the files that say nothing

    def as_json(self) -> dict:
        """As it is read back from a JSON file: with lists for tuples.

        Without `ignored` where it is empty, as in folders made before there was one.
        """
        fields = json.loads(json.dumps(asdict(self)))
        if not self.ignored:
            del fields["ignored"]
        return fields


def prepare_case(pair: ScanPair, settings: Settings) -> tuple[Case, dict]:
    """Returns the case, and its entry in the manifest.

    Its "doubts" (kind -> text) are there where the scan may be no CT, or its label map
    mirrored. Raises `BadData` naming the file when the pair cannot be used.
    """
    if reason := pair.unclear or missing_half(pair):
        raise BadData(reason)
    image, labels = read_pair(pair, settings.organs)
    others = passed_over(pair)
    assert pair.image is not None and labels is not None
    doubts = checks.checked(image)
    if reason := different_grids(image, labels):
        raise BadData(reason)
    if checks.in_hu(doubts):
        if axes := mirrored_axes(image, labels.voxels, settings.organs):
            doubts.append(checks.mirrored(axes))
    # Arrays are freed before the next ones are made: resources.py states the memory
    # that this function needs.
    counts = label_counts(labels.voxels)
    label_lut = label_values(counts, settings, pair.other_labels, labels.path)
    resampled = resample(labels, settings.spacing_mm, order="nearest")
    label = label_lut[resampled.voxels]
    del labels, resampled
    original = image.spacing_mm
    image = as_ct(image, settings.hu_range, in_place=True)
    if settings.blur_mm:
        image = blur(image, settings.blur_mm)
    image = resample(image, settings.spacing_mm, order="linear")
    voxels = image.voxels
    if voxels.dtype != np.int16:  # fractions of a HU, or values no CT has
        np.rint(voxels, out=voxels)
        voxels = np.clip(voxels, -32768, 32767, out=voxels).astype(np.int16)
    placement = image.grid.placement
    case = Case(
        image_hu=voxels,
        label=label,
        spacing_mm=np.asarray(settings.spacing_mm, float),
        affine=image.affine,
        original_shape=image.grid.shape,
        original_affine=image.grid.affine,
        original_placement=placement and placement.numbers(),
        case_id=pair.case_id,
    )
    return case, {
        "case_id": pair.case_id,
        "shape": list(voxels.shape),
        "spacing_mm": list(settings.spacing_mm),
        "original_shape": list(image.grid.shape),
        "original_spacing_mm": [round(float(s), 6) for s in original],
        "voxels_sha256": hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest(),
        **_patient(pair),
        "hu": _hu_statistics(voxels, case.hu),
        "labelled_hu": _labelled_hu(case, len(settings.organs)).as_json(),
        "voxels": {
            organ: int(np.count_nonzero(label == value))
            for organ, value in LabelMap.numbered(settings.organs).values.items()
        },
        **({"passed_over": others} if others else {}),
        **(
            {"ignored_voxels": int(np.count_nonzero(label == IGNORED))}
            if settings.ignored
            else {}
        ),
        **({"doubts": {d.kind: d.text for d in doubts}} if doubts else {}),
        **source_entries(pair, settings.organs),
    }


def _patient(pair: ScanPair) -> dict[str, str]:
    """The entry "patient" of a DICOM series that says whose it is."""
    if pair.image is None or not pair.image.is_dir():
        return {}
    digest = patient_digest(patient_id(pair.image, pair.series))
    return {} if digest is None else {"patient": digest}


def source_entries(
    pair: ScanPair, organs: Mapping[str, tuple[int, ...]]
) -> dict[str, dict]:
    """Names and checksums of the case's files, for the manifest: "image" and "label".

    The case must have both.
    """
    assert pair.image is not None
    labels = label_files(pair, organs)
    return {
        "image": _source_entry(pair.image, image_files(pair)),
        "label": _source_entry(labels[0], labels),
    }


def _source_entry(path: Path, files: list[Path]) -> dict:
    """The entry of one file, or of the folder that holds several."""
    if len(files) == 1 and files[0] == path:
        return {"file": path.name, "sha256": sha256(path)}
    folder = path if path.is_dir() else path.parent
    listed = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return {
        "file": folder.name,
        "files": len(files),
        "sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }


def label_values(
    counts: Mapping[int, int],
    settings: Settings,
    other_labels: tuple[int, ...],
    path: str,
) -> np.ndarray:
    """Lookup table: value in the file -> 0 background, 1..K in the order of the organs.

    Values that say nothing become `IGNORED`.

    `other_labels` are background by themselves. Raises `BadData` for values that
    are neither these nor an organ's, unless the settings ignore them.
    """
    label_lut = np.zeros(max(counts) + 1, np.uint8)
    named = {*other_labels, *settings.ignored}
    for number in settings.ignored:
        if number < len(label_lut):
            label_lut[number] = IGNORED
    for organ, value in LabelMap.numbered(settings.organs).values.items():
        numbers = settings.organs[organ]
        named |= set(numbers)
        for number in numbers:
            if number < len(label_lut):
                label_lut[number] = value
    reason = unnamed_labels(counts, named, path)
    if reason and not settings.ignore_unknown_labels:
        raise BadData(reason)
    return label_lut


def _labelled_hu(case: Case, organ_count: int) -> HuHistogram:
    """Counts the HU of the voxels of all organs, by which training normalises."""
    organs = (case.label > 0) & (case.label <= organ_count)
    return HuHistogram.of(case.image_hu[organs])


def _hu_statistics(image_hu: np.ndarray, hu: HuStatistics) -> dict[str, float]:
    """Returns range, mean, deviation, percentiles and levels of int16 `[D, H, W]`.

    Percentiles come from a histogram: exact, and the same on every machine.
    """
    voxels = HuHistogram.of(image_hu)
    levels = HuLevels.of(voxels)
    return {
        "min": int(hu.min),
        "max": int(image_hu.max()),
        "mean": round(hu.mean, 4),
        "std": round(hu.std, 4),
        "p0_5": round(voxels.percentile(0.5), 4),
        "p99_5": round(voxels.percentile(99.5), 4),
        "tissue": round(levels.tissue_hu, 4),
        "tissue_share": round(levels.tissue_share, 6),
    }
