"""Scores anybody's label maps on prepared cases, as a run of this project is scored.

A table must score all networks on one grid, that of the prepared data: a label map on
the scan's own grid is put onto it as preparation puts the truth.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attunet_jax.data.case_id import case_id_of
from attunet_jax.data.crops import CropSpec, centre_crop
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.labels import IGNORED
from attunet_jax.data.records import Case
from attunet_jax.data.segments import of_slicer
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.journal import journal_of, lines, made_by, rows_in
from attunet_jax.evaluate.label_maps.find import LabelMapFile, find_label_maps
from attunet_jax.evaluate.label_maps.meaning import (
    Meaning,
    Names,
    meaning_of,
    names_beside,
    names_of_flag,
)
from attunet_jax.evaluate.label_maps.measure import measure
from attunet_jax.evaluate.label_maps.read import grid_text, read_label_map
from attunet_jax.evaluate.surface import Definition
from attunet_jax.files import files_sha256, make_folder, write_text
from attunet_jax.volume import (
    Grid,
    Placement,
    Volume,
    canonical_grid,
    different_grids,
    on_image,
    resample,
)


class MissingCases(BadData):
    """A folder has no label map of some of the cases."""


def score_against_dataset(
    folder: Path,
    dataset: Dataset,
    case_ids: Iterable[str],
    *,
    labels: str | None = None,
    window: CropSpec | None = None,
    definition: Definition = "mesh",
    path: Path | None = None,
) -> list[dict]:
    """Scores the label maps in `folder` on prepared cases, in the order of `case_ids`.

    They lie on the scans' own grids (nnU-Net's output as it is, TotalSegmentator's
    masks, launch.predict) or on the prepared one, and have the names of the scans. The
    truth is the label map of the prepared data, the organs are those of it that the
    folder names: every case gets a row of each.

    Args:
      labels: `spleen=1,kidney=2+3`, the values in the folder's label maps. Without it
        the names are those of labels.json or dataset.json there or beside it.
      window: scores only this centre crop of each case, as `evaluate_cases` does for
        `config.predict.region=centre_crop`: CropSpec.exact(crop_shape, padding).
      definition: whose areas weigh the surfaces.
      path: cases.jsonl to write; rows that it has of these very files, data and
        settings are not made again.

    Returns:
      Rows as of `evaluate_cases`, with the stamp `grid` "prepared"; instead of step and
      weights they have `prediction_file` and `prediction_sha256`.

    Raises:
      BadArguments: nothing names the values, or no organ of the data.
      MissingCases: cases have no label map; nothing was scored.
      BadData: a label map is damaged or on another grid.
    """
    case_ids = list(case_ids)
    files, found, masks = find_label_maps(folder)
    if found.refused:
        raise BadData(found.refused[0])
    by_case = _by_case(folder, files, case_ids)
    meaning = _meaning(folder, dataset, labels, masks)
    done: dict[str, list[dict]] = {}
    journal = journal_of(path) if path else None
    for place in (path, journal):
        for row in rows_in(place) if place else ():
            done.setdefault(row["case_id"], []).append(row)
    rows: list[dict] = []
    for case_id in tqdm(case_ids, unit="case", desc=f"score {folder.name}", delay=0.5):
        file = by_case[case_id]
        stamp = {
            "case_id": case_id,
            "prediction_sha256": files_sha256(file.files),
            "manifest_sha256": dataset.manifest_sha256,
            "window": None if window is None else [*window.window_shape],
            "grid": "prepared",
            "definition": definition,
        }
        of_case = _standing(done.get(case_id, ()), stamp, meaning)
        if not of_case:
            case = dataset.case(case_id)
            of_case = _scored(file, case, dataset, meaning, window, definition)
            of_case = [
                {
                    **row,
                    **stamp,
                    "prediction_file": str(file.path),
                    "prediction_values": [*organ.prediction],
                }
                for row, organ in zip(of_case, meaning.organs, strict=True)
            ]
        rows += of_case
        if journal:
            make_folder(journal.parent)
            with journal.open("a", encoding="utf-8") as written:
                written.write(lines(of_case))
    if path and journal:
        write_text(path, lines(rows))
        journal.unlink(missing_ok=True)
    return rows


def _by_case(
    folder: Path, files: Sequence[LabelMapFile], case_ids: Sequence[str]
) -> dict[str, LabelMapFile]:
    """The label map of each case: by its path below the folder, else its name alone."""
    by_id: dict[str, list[LabelMapFile]] = {}
    for file in files:
        names = {file.identity, file.stem}
        names |= {name.rpartition("/")[2] for name in names}
        for case_id in {case_id_of(name) for name in names}:
            by_id.setdefault(case_id, []).append(file)
    for file in files:  # a whole path decides where a name alone is there twice
        for case_id in {case_id_of(file.identity), case_id_of(file.stem)}:
            by_id[case_id].sort(key=lambda f: case_id not in _ids(f))
    missing = [case_id for case_id in case_ids if case_id not in by_id]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise MissingCases(
            f"{folder}: has no label map of {len(missing)} of the {len(case_ids)} "
            f"cases ({', '.join(missing[:3])}{more}): a table compares all networks on "
            "the same cases; predict these too"
        )
    found = {}
    for case_id in case_ids:
        first, *others = by_id[case_id]
        if others and case_id not in _ids(first):
            raise BadData(
                f"{first.path}: which label map is that of case {case_id}, this or "
                f"{others[0].path}? remove one"
            )
        found[case_id] = first
    return found


def _ids(file: LabelMapFile) -> set[str]:
    return {case_id_of(file.identity), case_id_of(file.stem)}


def _meaning(
    folder: Path,
    dataset: Dataset,
    labels: str | None,
    masks: Mapping[str, tuple[int, ...]],
) -> Meaning:
    if labels:
        names = names_of_flag(labels, "labels")
    elif masks:
        names = Names(masks, f"the files in {folder}")
    else:
        names = names_beside(folder)
    known = dataset.labels
    if names is None:
        example = json.dumps({str(v): organ for organ, v in known.values.items()})
        raise BadArguments(
            f"{folder}: nothing says what the values of its label maps mean; put a "
            f"labels.json there, such as {example}"
        )
    ignored = () if known.ignore_value is None else (known.ignore_value,)
    truth = Names(
        {organ: (value,) for organ, value in known.values.items()},
        dataset.place,
        ignored,
    )
    if not {o.casefold() for o in names.organs} & {o.casefold() for o in truth.organs}:
        raise BadArguments(
            f"{folder}: has none of the organs of {dataset.place}: it has "
            f"{', '.join(names.organs)} (by {names.source}), the data "
            f"{', '.join(truth.organs)}"
        )
    meaning = meaning_of(truth, names)
    assert meaning is not None
    return meaning


def _standing(
    done: Iterable[dict], stamp: Mapping[str, Any], meaning: Meaning
) -> list[dict]:
    """Rows of before for every organ, or none."""
    rows = {
        row["organ"]: row
        for row in done
        if made_by(row, stamp) and "prediction_values" in row
    }
    wanted = [
        rows.get(organ.name)
        for organ in meaning.organs
        if rows.get(organ.name, {}).get("prediction_values") == [*organ.prediction]
    ]
    kept = [row for row in wanted if row]
    return kept if len(kept) == len(meaning.organs) else []


def _scored(
    file: LabelMapFile,
    case: Case,
    dataset: Dataset,
    meaning: Meaning,
    window: CropSpec | None,
    definition: Definition,
) -> list[dict]:
    prediction = on_prepared_grid(file, case, dataset, meaning)
    truth = case.label
    if window is not None:
        truth = centre_crop(case, window)["label"]
        prediction, meaning = _in_bytes(prediction, meaning)
        prediction = centre_crop(replace(case, label=prediction), window)["label"]
    known = truth != IGNORED if meaning.ignored else None
    rows = measure(
        truth,
        prediction,
        case.spacing_mm,
        replace(meaning, ignored=()),
        known,
        definition,
    )
    return rows


def _in_bytes(labels: np.ndarray, meaning: Meaning) -> tuple[np.ndarray, Meaning]:
    """Returns the labels as uint8, where values that mean nothing are 0."""
    values = sorted({v for organ in meaning.organs for v in organ.prediction})
    number = {value: n for n, value in enumerate(values, start=1)}
    table = np.zeros(max(int(labels.max()), *values) + 1, np.uint8)
    table[values] = [number[value] for value in values]
    organs = tuple(
        replace(organ, prediction=tuple(number[v] for v in organ.prediction))
        for organ in meaning.organs
    )
    return table[labels], replace(meaning, organs=organs)


def on_prepared_grid(
    file: LabelMapFile, case: Case, dataset: Dataset, meaning: Meaning
) -> np.ndarray:
    """Reads a label map onto the grid of a prepared case, `[D, H, W]`.

    Raises `BadData` where it lies neither on the scan's grid nor on the prepared one.
    """
    wanted = {value for organ in meaning.organs for value in organ.prediction}
    labels = read_label_map(file, wanted)
    here = Volume(case.label, case.affine, Grid(case.label.shape, case.affine), "")
    if different_grids(here, labels) is None:
        return labels.voxels
    scan = scan_grid(case)
    if file.of_slicer:
        named = {organ.name: organ.prediction for organ in meaning.organs}
        labels = of_slicer(labels, scan, named)
    labels = on_image(labels, scan)
    if different_grids(scan, labels):
        raise BadData(
            f"{file.path}: {grid_text(labels)}, the scan of case {case.case_id} "
            f"{grid_text(scan)} (D x H x W); predict on the scan's own grid"
        )
    voxels = resample(labels, dataset.manifest["spacing_mm"], order="nearest").voxels
    if voxels.shape != case.label.shape:
        raise BadData(
            f"{file.path}: does not fit case {case.case_id} of {dataset.place}: "
            "prepare the data again"
        )
    return voxels


def scan_grid(case: Case) -> Volume:
    """Returns the grid of a case's scan as a volume without voxels of its own."""
    placement = case.original_placement
    grid = Grid(
        case.original_shape,
        case.original_affine,
        None if placement is None else Placement.of_numbers(placement),
    )
    shape, affine = canonical_grid(grid)
    nothing = np.broadcast_to(np.uint8(0), shape)
    return Volume(nothing, affine, grid, f"scan of case {case.case_id}")
