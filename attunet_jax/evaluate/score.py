"""Scores anybody's label maps: two folders of them, no run of this project needed.

Needs no JAX. One case is in memory at a time, in each worker process.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from attunet_jax.data.identity import FoundScan, counted, find_scans
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.journal import journal_of, lines, rows_in
from attunet_jax.evaluate.label_maps.find import Pair, Pairs, find_pairs, names_of
from attunet_jax.evaluate.label_maps.meaning import (
    Meaning,
    Names,
    by_values,
    meaning_of,
    names_beside,
    names_of_flag,
)
from attunet_jax.evaluate.label_maps.measure import (
    Picture,
    Scored,
    Settings,
    score_pair,
    values_of,
)
from attunet_jax.evaluate.label_maps.read import other_grid_of_headers
from attunet_jax.evaluate.label_maps.results import (
    CASES,
    Scores,
    check_output,
    forget,
    record_of,
    write_results,
)
from attunet_jax.evaluate.surface import Definition
from attunet_jax.files import make_folder, write_text
from attunet_jax.volume import read_grid
from attunet_jax.workers import choose_workers, run_in_processes

# Python with its libraries, and per voxel of a map: both as read and as numbered, a
# mask, and what counting and measuring add.
_BASE_BYTES, _BYTES_A_VOXEL = 160 * 2**20, 12
# Starting a process takes as long as scoring so many voxels.
_FEW_VOXELS = 2**24


def score_folders(
    truth: Path,
    prediction: Path,
    output: Path,
    *,
    labels: str | None = None,
    prediction_labels: str | None = None,
    resample: bool = False,
    definition: Definition = "mesh",
    images: Path | None = None,
    pictures: int | None = None,
    workers: int | None = 1,
) -> Scores:
    """Scores the label maps of `prediction` against those of `truth` with their names.

    Both are folders, or files. Writes cases.jsonl, summary.json and summary.md as
    `evaluate_into_folder` does, nnU-Net's summary as nnunet_summary.json, and
    score.json, which says what was compared. Cases that cases.jsonl holds for these
    very files and settings are not scored again; after an interruption the same call
    continues. Where nothing can be scored, nothing is written.

    Args:
      labels: `spleen=1,kidney=2+3`, the values in the truth, and in the predictions
        unless labels.json or dataset.json beside these says otherwise. Without it the
        names are those of such files; without these every value is a `label_1`.
      prediction_labels: the same of the predictions.
      resample: whether a prediction on another grid is put onto its truth's.
      definition: whose areas weigh the surfaces; see surface.py.
      images: scans on which pictures are drawn, PNG, of the first `pictures` cases.
      workers: processes; None for as many as cores and memory allow.

    Raises:
      BadArguments: the two are one place, have no label in common, or `output` is one
        of them or holds another evaluation.
      BadData: there is no pair, or none could be scored.
    """
    check_output(output, truth, prediction)
    pairs = find_pairs(truth, prediction, [output, *([images] if images else [])])
    result = Scores(unmatched=_unmatched(pairs), left_out=list(pairs.refused))
    if pairs.unused:
        result.notes.append(f"no label maps, passed over: {counted(pairs.unused)}")
    meaning = meaning_of(
        _names(truth, labels, "labels", pairs),
        _names(prediction, prediction_labels, "prediction_labels", pairs)
        or (None if not labels else names_of_flag(labels, "labels")),
    )
    errors = _other_grids(pairs.pairs, resample)
    usable = [pair for pair in pairs.pairs if pair.case_id not in errors]
    workers = _choose_workers(usable, workers)
    if usable and meaning is None:
        meaning, bad = _meaning_of_values(usable, workers, output)
        errors |= bad
    if not usable or meaning is None:
        raise BadData(_reasons(errors))
    result.notes += meaning.notes
    drawn = _pictures(pairs.pairs, output, images, pictures, result.notes)
    settings = Settings(meaning, resample, definition)
    scored = _score_all(usable, settings, drawn, workers, output)
    errors |= {name: one.error for name, one in scored.items() if one.error}
    result.notes += sorted({note for one in scored.values() for note in one.notes})
    result.rows = [row for p in usable for row in scored[p.case_id].rows]
    if not result.rows:
        raise BadData(_reasons(errors))
    if resampled := len({row["case_id"] for row in result.rows if row["resampled"]}):
        result.notes.append(f"{resampled} predictions were put onto their truth's grid")
    result.notes += _unnamed(result.rows)
    absent = _absent(meaning, result.rows)
    if absent and labels:
        forget(output)
        raise BadData(
            f"{truth}: no case has {', '.join(absent)}; correct --labels={labels}"
        )
    if absent:
        result.notes.append(f"no case has {', '.join(absent)}")
    if errors:
        result.left_out.append(_reasons(errors, len(pairs.pairs)))
    write_results(output, result, record_of(truth, prediction, settings))
    return result


def _names(place: Path, given: str | None, flag: str, pairs: Pairs) -> Names | None:
    """The names of one side: of its flag, its masks, or files beside it."""
    if given:
        return names_of_flag(given, flag)
    side = "truth" if flag == "labels" else "prediction"
    if masks := pairs.mask_names.get(side):
        return Names(masks, f"the files in {place}")
    return names_beside(place)


def _unmatched(pairs: Pairs) -> list[str]:
    """A line for each kind of label map that has no other half."""
    kinds = {
        "without a prediction": pairs.without_prediction,
        "without a truth": pairs.without_truth,
    }
    return [
        f"{len(files)} {kind} ({names_of(files)})"
        for kind, files in kinds.items()
        if files
    ]


def _other_grids(pairs: Iterable[Pair], resample: bool) -> dict[str, str]:
    """Reasons by case; headers tell before any work is done."""
    if resample:
        return {}
    found = {pair.case_id: other_grid_of_headers(pair) for pair in pairs}
    return {case_id: reason for case_id, reason in found.items() if reason}


def _reasons(errors: Mapping[str, str], of: int | None = None) -> str:
    """One line: the first reason, and how many more there are."""
    first = next(iter(errors.values()))
    if of is None:
        more = len(errors) - 1
        return first + (f" (and {more} more cases alike or bad)" if more else "")
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{len(errors)} of {of} cases: {first}{more}"


def _choose_workers(pairs: Sequence[Pair], requested: int | None) -> int:
    sizes = []
    for pair in pairs:
        try:
            sizes.append(read_grid(pair.truth.files[0])[0].voxels.size)
        except (BadData, OSError):
            continue
    if not sizes or (requested is None and sum(sizes) < _FEW_VOXELS):
        return requested or 1
    if requested == 1:
        return 1
    process_bytes = _BASE_BYTES + _BYTES_A_VOXEL * max(sizes)
    return choose_workers("score", process_bytes, len(pairs), requested)


def _meaning_of_values(
    pairs: Sequence[Pair], workers: int, output: Path
) -> tuple[Meaning | None, dict[str, str]]:
    """Makes each value an organ, where nobody names them: reads all label maps."""
    found: dict[int, Any] = {}
    _run(values_of, [(pair,) for pair in pairs], workers, output, "values", found)
    errors = {pairs[i].case_id: v[2] for i, v in sorted(found.items()) if v[2]}
    truth = {value for values in found.values() for value in values[0]} - {0}
    prediction = {value for values in found.values() for value in values[1]} - {0}
    if len(errors) == len(pairs):
        return None, errors
    meaning = by_values(truth, prediction)
    if meaning is None:
        raise BadArguments(
            f"no label in common: the truth has values {_shown(truth)}, the prediction "
            f"{_shown(prediction)}; name them: --labels=spleen=1,... and "
            "--prediction_labels=spleen=2,..."
        )
    return meaning, errors


def _shown(values: set[int]) -> str:
    shown = [str(value) for value in sorted(values)]
    return ", ".join(shown[:10]) + (", ..." if shown[10:] else "") or "none"


def _pictures(
    pairs: Sequence[Pair],
    output: Path,
    images: Path | None,
    first: int | None,
    notes: list[str],
) -> dict[str, Picture]:
    """The picture of each of the first cases whose scan is there."""
    if images is None:
        return {}
    scans: dict[str, FoundScan] = {}
    for scan in find_scans(images).scans:
        scans[scan.identity] = scan
        scans.setdefault(scan.identity.rpartition("/")[2], scan)
    found, missing = {}, []
    for pair in pairs[:first]:
        scan = scans.get(pair.truth.identity) or scans.get(pair.truth.stem)
        if scan is None:
            missing.append(pair.truth)
        else:
            path = output / f"{pair.case_id}.png"
            found[pair.case_id] = Picture(path, scan.path, scan.series)
    if missing:
        notes.append(
            f"no picture of {names_of(missing)}: {images} has no scan of that name"
        )
    return found


def _score_all(
    pairs: Sequence[Pair],
    settings: Settings,
    drawn: Mapping[str, Picture],
    workers: int,
    output: Path,
) -> dict[str, Scored]:
    """Scores each pair; rows go to the journal as they come."""
    path = output / CASES
    done: dict[str, list[dict]] = {}
    for row in (*rows_in(path), *rows_in(journal_of(path))):
        done.setdefault(row["case_id"], []).append(row)
    results: dict[str, Scored] = {}
    found: dict[int, Any] = {}
    journal = None

    def on_scored(number: int, scored: Scored) -> None:
        nonlocal journal
        results[pairs[number].case_id] = scored
        if scored.rows:
            if journal is None:  # the first: before it nothing is written
                make_folder(output)
                old = [row for rows in done.values() for row in rows]
                write_text(journal_of(path), lines(old))
                journal = journal_of(path).open("a", encoding="utf-8")
            journal.write(lines(scored.rows))
            journal.flush()

    calls = [
        (pair, settings, done.get(pair.case_id, ()), drawn.get(pair.case_id))
        for pair in pairs
    ]
    try:
        _run(score_pair, calls, workers, output, "score", found, on_scored)
    finally:
        if journal is not None:
            journal.close()
    return results


def _run(
    function: Any,
    calls: Sequence[tuple],
    workers: int,
    output: Path,
    title: str,
    results: dict[int, Any],
    on_result: Any = None,
) -> None:
    """Calls `function`, here or in processes, with a bar once it takes a while."""
    with tqdm(total=len(calls), unit="case", desc=title, delay=0.5) as bar:

        def take(number: int, result: Any) -> None:
            results[number] = result
            if on_result:
                on_result(number, result)
            bar.update()

        if workers == 1 or len(calls) == 1:
            for number, call in enumerate(calls):
                take(number, function(*call))
        else:
            run_in_processes(function, calls, workers, output, take)


def _absent(meaning: Meaning, rows: Sequence[Mapping]) -> list[str]:
    """Organs that no case has in its truth."""
    there = {row["organ"] for row in rows if row["truth_vox"]}
    return [organ.name for organ in meaning.organs if organ.name not in there]


def _unnamed(rows: Sequence[Mapping]) -> list[str]:
    """A line for each side with values that have no name, and in how many cases."""
    notes = []
    for side, flag in (("truth", "labels"), ("prediction", "prediction_labels")):
        cases: Counter[int] = Counter()
        # All rows of a case say the same; those of an earlier version nothing.
        found = {row["case_id"]: row.get("unnamed_values", {}) for row in rows}
        for values in found.values():
            cases.update(values.get(side, ()))
        if cases:
            shown = [
                f"{value} ({n} case{'s' if n > 1 else ''})"
                for value, n in sorted(cases.items())
            ]
            more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
            notes.append(
                f"values without a name in the {side}, {len(shown)}, count as "
                f"background: {', '.join(shown[:10])}{more}; --{flag}=NAME=VALUE,... "
                "names them"
            )
    return notes
