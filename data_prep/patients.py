"""Finds which cases are of one patient: they must be on one side of every split.

In this order: a CSV of the user, a pattern of the names, the PatientID of DICOM, names
after BIDS (`sub-07_ses-1`). Without any of them each case counts as its own patient.
Cases whose prepared voxels are equal are one scan under several names, and stay
together whatever else says.
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.data.case_id import case_id_of
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.volume import split_ending
from data_prep.wording import listed

_COLUMNS = ("case", "patient")
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)")
# What programs write for a patient whose ID was removed.
_NO_ID = re.compile(
    r"(anon[a-z]*|de-?id[a-z]*|none|no.?id|unknown|removed|x+|0*|\W*)", re.I
)


@dataclass(frozen=True)
class Patients:
    """Which patient each case is of, and how that is known.

    `of` has a patient for each case id; `told_by` is a phrase for the user. `twins` are
    groups of cases with equal voxels. `units` are the groups of case ids that no split
    takes apart, each sorted, in the order of their first ids.
    """

    of: dict[str, str]
    told_by: str
    twins: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> list[tuple[str, ...]]:
        # A case is joined to all of its patient and to all of its twins.
        root = {case_id: case_id for case_id in self.of}

        def find(case_id: str) -> str:
            while root[case_id] != case_id:
                case_id = root[case_id]
            return case_id

        first: dict[str, str] = {}
        for case_id, patient in sorted(self.of.items()):
            root[find(case_id)] = find(first.setdefault(patient, case_id))
        for group in self.twins:
            for case_id in group[1:]:
                root[find(case_id)] = find(group[0])
        units = defaultdict(list)
        for case_id in sorted(self.of):
            units[find(case_id)].append(case_id)
        return sorted(tuple(unit) for unit in units.values())

    def as_json(self) -> dict:
        """The part of splits.json that says how patients were told apart."""
        return {
            "told_apart_by": self.told_by,
            "count": len(self.units),
            "together": [list(unit) for unit in self.units if len(unit) > 1],
            "equal_scans": [list(group) for group in self.twins],
        }

    def summary(self) -> list[str]:
        """Lines for the user."""
        count = len(self.units)
        lines = [*self.notes]
        if count == len(self.of):
            told = "each case counts as its own" if not self.told_by else self.told_by
            lines.append(f"patients: {count}: {told}")
        else:
            lines.append(
                f"patients: {count} in {len(self.of)} cases: {self.told_by}; cases of "
                "one patient are in one part of every split"
            )
        if count == 1 < len(self.of):
            lines.append("one patient alone: no split has cases both to train and test")
        if self.twins:
            shown = [" = ".join(group) for group in self.twins]
            lines.append(
                f"the same scan under several names, kept in one part of every split: "
                f"{listed(shown)}"
            )
        return lines


EACH_ITS_OWN = "each case counts as its own (--patients or --patient_pattern groups)"


def find_patients(
    entries: Sequence[Mapping], csv_file: Path | None, pattern: str | None
) -> Patients:
    """Tells the patients of the manifest's `entries` apart.

    Raises `BadArguments` or `BadData` for a pattern or file that leaves a case without
    patient.
    """
    case_ids = sorted(entry["case_id"] for entry in entries)
    notes: tuple[str, ...] = ()
    if csv_file is not None:
        of, told_by = _of_csv(case_ids, csv_file), f"those of {csv_file.name}"
    elif pattern is not None:
        of, told_by = _of_pattern(case_ids, pattern), f"those of the pattern {pattern}"
    else:
        of, told_by, notes = _of_entries(case_ids, entries)
    return Patients(of, told_by, _twins(entries), notes)


def check_pattern(text: str) -> re.Pattern:
    """Compiles --patient_pattern. Raises `BadArguments`."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise BadArguments(f"--patient_pattern={text}: {error}") from None
    if pattern.groups != 1:
        raise BadArguments(
            f"--patient_pattern={text}: has {pattern.groups} groups; the patient is "
            "what its one group ( ) matches, as in '(.+)_[ab]'"
        )
    return pattern


def patient_digest(patient_id: str) -> str | None:
    """What stands in the manifest for a DICOM PatientID; None where it is no ID.

    It tells patients apart without naming them: manifests are shared.
    """
    plain = " ".join(patient_id.split())
    if _NO_ID.fullmatch(plain):
        return None
    return hashlib.sha256(f"PatientID {plain}".encode()).hexdigest()[:16]


def _of_pattern(case_ids: Sequence[str], text: str) -> dict[str, str]:
    pattern = check_pattern(text)
    found = {case_id: pattern.search(case_id) for case_id in case_ids}
    without = [case_id for case_id, match in found.items() if not (match and match[1])]
    if without:
        raise BadArguments(
            f"--patient_pattern={text}: matches no patient in {len(without)} of "
            f"{len(case_ids)} cases: {listed(without)}"
        )
    return {case_id: match[1] for case_id, match in found.items() if match}


def _of_csv(case_ids: Sequence[str], path: Path) -> dict[str, str]:
    """The patients of a table with the columns case and patient, in any order."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, file.read())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise BadData(f"{path}: cannot be read ({reason})") from None
    of: dict[str, str] = {}
    known = set(case_ids)
    for name, patient in rows:
        # People write the name of the file, too, with or without its ending.
        case_id = name if name in known else case_id_of(split_ending(name)[0])
        if of.setdefault(case_id, patient) != patient:
            raise BadData(
                f"{path}: case {case_id} is of {of[case_id]} and of {patient}; keep one"
            )
    without = [case_id for case_id in case_ids if case_id not in of]
    if without:
        raise BadData(
            f"{path}: names no patient of {len(without)} of {len(case_ids)} cases: "
            f"{listed(without)}"
        )
    return {case_id: of[case_id] for case_id in case_ids}


def _rows(path: Path, text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = next((d for d in ",;\t" if lines and d in lines[0]), ",")
    table = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    columns = [cell.strip().lower() for cell in table[0]] if table else []
    for aliases in (("case", "case_id", "id"), ("patient", "patient_id", "subject")):
        for alias in aliases:
            if alias in columns and aliases[0] not in columns:
                columns[columns.index(alias)] = aliases[0]
    if not set(_COLUMNS) <= set(columns):
        raise BadData(f"{path}: its first line must name the columns case and patient")
    case, patient = (columns.index(name) for name in _COLUMNS)
    found = []
    for number, row in enumerate(table[1:], start=2):
        cells = [cell.strip() for cell in row]
        if len(cells) <= max(case, patient) or not (cells[case] and cells[patient]):
            raise BadData(f"{path}: row {number} lacks a case or a patient")
        found.append((cells[case], cells[patient]))
    return found


def _of_entries(
    case_ids: Sequence[str], entries: Sequence[Mapping]
) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """Patients by what the cases themselves say: PatientID, or names after BIDS."""
    own = {case_id: f"case {case_id}" for case_id in case_ids}
    ids = {e["case_id"]: e["patient"] for e in entries if e.get("patient")}
    if len(ids) > 1 and len(set(ids.values())) == 1:
        note = (
            f"the PatientID of all {len(ids)} DICOM scans is the same, so it tells no "
            "patients apart and is not used: give --patients or --patient_pattern"
        )
        return own, EACH_ITS_OWN, (note,)
    if ids:
        others = len(case_ids) - len(ids)
        told_by = "by the PatientID of DICOM" + (
            f"; {others} cases without one count each as its own" if others else ""
        )
        return own | ids, told_by, ()
    subjects = {case_id: _BIDS.match(case_id) for case_id in case_ids}
    if case_ids and all(subjects.values()):
        of = {case_id: match[0] for case_id, match in subjects.items() if match}
        return of, "those of their names after BIDS (sub-...)", ()
    return own, EACH_ITS_OWN, ()


def _twins(entries: Sequence[Mapping]) -> tuple[tuple[str, ...], ...]:
    by_voxels = defaultdict(list)
    for entry in entries:
        if "voxels_sha256" in entry:
            by_voxels[entry["voxels_sha256"]].append(entry["case_id"])
    return tuple(sorted(tuple(sorted(ids)) for ids in by_voxels.values() if ids[1:]))
