"""Evaluates a network into a folder: scores, a summary, pictures, label maps."""

import json
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.case_files import CaseFiles
from attunet_jax.evaluate.cases import (
    PREPARED,
    Scoring,
    evaluate_cases,
    organs_of,
    rows_of_others,
    scored_cases,
    stamp_of,
)
from attunet_jax.evaluate.definitions import METRICS, definitions_text
from attunet_jax.evaluate.evaluation_record import RECORD
from attunet_jax.evaluate.journal import journal_of, rows_in
from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.evaluate.summary import markdown_summary, short_summary, summary
from attunet_jax.files import make_folder, write_text
from attunet_jax.predict.outputs import write_labels
from attunet_jax.predict.predictor import Predictor
from attunet_jax.storage.names import shown, with_urls

SUMMARIES = ("summary.json", "summary.md", RECORD)


def evaluate_into_folder(
    predictor: Predictor,
    dataset: Dataset,
    case_ids: tuple[str, ...],
    folder: Path,
    *,
    pictures: int,
    label_maps: bool,
    replace: bool = True,
    scoring: Scoring = PREPARED,
) -> tuple[list[dict], str]:
    """Evaluates `case_ids`; writes cases.jsonl, summary.json and summary.md.

    A case that has its scores already is predicted again where a picture or label map
    of it is asked for and missing.

    Args:
      pictures: overlay PNGs are drawn of the first so many cases.
      label_maps: whether predictions are kept, on the scans' own grids.
      replace: whether an evaluation by another checkpoint, or of other data or
        settings, is removed from the folder; otherwise it is refused.
      scoring: on which grid, and by which definition.

    Returns:
      The rows of all cases, and a short summary for a terminal.

    Raises:
      BadArguments: as `evaluate_cases`; or the folder holds another evaluation, one of
        further cases, or label maps whose values mean other organs.
      BadData: the folder cannot be written.
    """
    organs_of(predictor, dataset)  # what does not fit leaves no folder
    kept, drawn = CaseFiles(folder, predictor, dataset), set(case_ids[:pictures])

    def is_incomplete(case_id: str) -> bool:
        return (case_id in drawn and not kept.picture(case_id).exists()) or (
            label_maps and not kept.label_map(case_id).exists()
        )

    with _removed_unless_begun(folder):
        make_folder(folder / "label_maps" if label_maps else folder)
        stamp = stamp_of(predictor, dataset, scoring)
        maps_stay = _make_way(folder, stamp, case_ids, replace)
        scored = scored_cases(folder / "cases.jsonl", stamp)
        _refuse_other_cases(folder, scored, case_ids)
        if label_maps:
            write_labels(folder / "label_maps", predictor.names, [])
        for name in SUMMARIES:  # of before; an interruption leaves none
            (folder / name).unlink(missing_ok=True)
        with tqdm(total=len(case_ids), unit="case", desc="evaluate") as bar:

            def on_case(
                case: Case, prediction: np.ndarray, rows: list[dict], is_new: bool
            ) -> None:
                bar.update()
                if is_new:
                    kept.picture(case.case_id).unlink(missing_ok=True)
                    if not maps_stay:
                        kept.label_map(case.case_id).unlink(missing_ok=True)
                if case.case_id in drawn:
                    kept.draw(case, prediction, rows)
                if label_maps:
                    kept.write_label_map(case, prediction)

            rows = evaluate_cases(
                predictor,
                dataset,
                case_ids,
                folder / "cases.jsonl",
                on_case=on_case,
                is_incomplete=is_incomplete,
                scoring=scoring,
            )
            bar.update(len(case_ids) - bar.n)
    return rows, _write_summaries(folder, rows, predictor, dataset)


@contextmanager
def _removed_unless_begun(folder: Path) -> Iterator[None]:
    """Removes what was made of `folder` where no case is scored in the end."""
    there = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except Exception:
        cases = folder / "cases.jsonl"
        if folder in there and not rows_in(cases) and not rows_in(journal_of(cases)):
            shutil.rmtree(folder, ignore_errors=True)
            for place in there[1:]:
                with suppress(OSError):  # others may be writing there
                    place.rmdir()
        raise


def _write_summaries(
    folder: Path, rows: list[dict], predictor: Predictor, dataset: Dataset
) -> str:
    """Writes summary.json and summary.md; returns a short one for a terminal."""
    numbers = summary(rows)
    write_text(folder / "summary.json", json.dumps(numbers, indent=2) + "\n")
    scored = f"\n{scoring_text(rows)}\n"
    known = dataset.labels.organs
    if unknown := [organ for organ in predictor.labels.organs if organ not in known]:
        scored += f"\nNot scored, not in {dataset.place}: {', '.join(unknown)}\n"
    text = f"{markdown_summary(numbers, rows)}{scored}\n{definitions_text(METRICS)}"
    write_text(folder / "summary.md", text)
    return (
        f"{short_summary(numbers)}{scored}\n"
        f"all scores, with intervals and definitions: {folder / 'summary.md'}"
    )


def _refuse_other_cases(
    folder: Path, scored: Set[str], case_ids: tuple[str, ...]
) -> None:
    """Raises `BadArguments` where rows of other cases would be lost from the folder."""
    if others := scored - set(case_ids):
        raise BadArguments(
            f"{folder}: holds scores of {len(others)} cases that are not asked for, "
            f"such as {min(others)} (of another split or part): use another --output, "
            "or remove it"
        )


# What a user knows the parts of a stamp as.
_PARTS = {
    "step": "checkpoint",
    "weights": "weights",
    "predict": "settings",
    "manifest_sha256": "data",
}


def _make_way(
    folder: Path, stamp: Mapping[str, Any], case_ids: tuple[str, ...], replace: bool
) -> bool:
    """Removes from `folder` what was made with another stamp, so that nothing mixes.

    Returns whether what is removed are scores alone, of the same predictions: label
    maps are left.
    """
    others = rows_of_others(folder / "cases.jsonl", stamp)
    if not others:
        return False
    row = others[-1]
    differing = [key for key, value in stamp.items() if row.get(key) != value]
    same_predictions = set(differing) <= {"grid", "definition"}
    if same_predictions and not row.keys() & {"grid", "definition"}:
        _refuse_other_cases(folder, {row["case_id"] for row in others}, case_ids)
        print(
            f"{shown(folder)}: holds scores of an earlier version, without "
            f"{', '.join(name for name in METRICS if name not in row)}: they are made "
            "again",
            flush=True,
        )
    else:
        names = [
            _PARTS.get(key, key)
            + (f" (step {row.get(key)}, now {stamp[key]})" if key == "step" else "")
            for key in differing
        ]
        holds = f"{folder}: holds an evaluation with another {', '.join(names)}"
        if not replace:
            raise BadArguments(f"{holds}: use another --output, or remove it")
        print(f"{with_urls(holds)}: it is made again", flush=True)
    made = ["cases.jsonl", ".cases.jsonl.new"]
    for case_id in {str(row["case_id"]) for row in others}:
        made.append(f"{case_id}.png")
        if not same_predictions:
            made.append(f"label_maps/{case_id}.nii.gz")
    for path in (folder / name for name in made):
        if path.resolve().is_relative_to(folder.resolve()):  # whatever the rows say
            path.unlink(missing_ok=True)
    return same_predictions
