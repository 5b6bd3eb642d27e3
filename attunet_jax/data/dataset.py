"""Opens and checks a folder of prepared data: its cases, splits and labels.

`python -m data_prep.prepare` writes the folder: shards of records, manifest.json (their
contents) and splits.json (cases for training, validation and test).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attunet_jax.data import shards
from attunet_jax.data.case_id import is_case_id
from attunet_jax.data.labels import IGNORED, LARGEST_ORGAN, LabelMap
from attunet_jax.data.records import Case, PackedCase, open_bytes
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import parse_json, sha256
from attunet_jax.intensity import HuHistogram, HuLevels
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown, urls_in_errors

FORMAT = "attunet_jax.cases"
FORMAT_VERSION = 1
PARTS = ("train", "validation", "test")
PREPARE = "run python -m data_prep.prepare"
# Matches files of the folder itself only: no separators, no "..".
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The cases of one prepared folder; see `open_dataset`."""

    directory: Path
    manifest: dict[str, Any]
    splits: dict[str, dict[str, tuple[str, ...]]]  # split -> part -> case ids
    manifest_sha256: str

    @cached_property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all cases, in the manifest's order."""
        return tuple(case["case_id"] for case in self.manifest["cases"])

    @property
    def place(self) -> str:
        """The folder or URL by which the user knows the data."""
        return shown(self.directory)

    @property
    def labels(self) -> LabelMap:
        """The meaning of the values in the label maps."""
        return LabelMap(self.manifest["organs"], self.manifest.get("ignore_value"))

    @cached_property
    def shard_paths(self) -> tuple[Path, ...]:
        """Paths of the shards, in the manifest's order."""
        return tuple(self.directory / s["file"] for s in self.manifest["shards"])

    def split(self, name: str, flag: str = "") -> dict[str, tuple[str, ...]]:
        """Returns part (train, validation, test) -> case ids.

        Raises `BadArguments`, naming the `flag` that chose the split, if one did.
        """
        if name not in self.splits:
            chosen = f"{flag}={name}: " if flag else ""
            raise BadArguments(
                f"{chosen}{self.place} has no split {name!r}; it has: "
                + ", ".join(self.splits)
            )
        return self.splits[name]

    def split_sha256(self, name: str) -> str:
        """Returns a checksum of which cases are in which part of a split."""
        parts = {part: sorted(self.split(name)[part]) for part in PARTS}
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def redrawn_since(self, run: Mapping[str, Any]) -> str | None:
        """Says so where the split that a run was trained on is another one now.

        `run` is what the run stores. None for other data, where nothing is known, and
        for a run from before this was stored.
        """
        name = run["config"]["data"]["split"]
        stored = run.get("split_sha256")
        same_data = run.get("manifest_sha256") == self.manifest_sha256
        if stored is None or not same_data or name not in self.splits:
            return None
        if stored == self.split_sha256(name):
            return None
        return (
            f"{self.directory / 'splits.json'}: split {name} was drawn anew since this "
            "run was trained, so its test cases may have been trained on: put the "
            "splits.json of that time back"
        )

    @property
    def hu_range(self) -> list[int] | None:
        """What values of the scans were clipped to; None in data prepared before."""
        return self.manifest["settings"].get("hu_range")

    def labelled_hu(self, case_ids: Iterable[str]) -> HuHistogram | None:
        """Adds up the HU of the labelled voxels of cases.

        None where a case has no histogram: the data were prepared before.
        """
        stored = [self._entry(case_id).get("labelled_hu") for case_id in case_ids]
        if None in stored:
            return None
        return HuHistogram.total(map(HuHistogram.from_json, stored))

    def absent(self, case_ids: Iterable[str], organs: Iterable[str]) -> dict[str, int]:
        """Counts the cases that lack each organ, by what the manifest says of them.

        A case of which it says nothing (data of other programs) counts for none.
        """
        counts = dict.fromkeys(organs, 0)
        for case_id in case_ids:
            voxels = self._entry(case_id).get("voxels")
            for organ in counts:
                if isinstance(voxels, dict) and voxels.get(organ) == 0:
                    counts[organ] += 1
        return counts

    def hu_levels(self, case_ids: Iterable[str]) -> list[HuLevels]:
        """Returns the levels of whole scans; none in data prepared before."""
        stored = [self._entry(case_id).get("hu", {}) for case_id in case_ids]
        return [
            HuLevels(hu["p0_5"], hu["tissue"], hu["tissue_share"])
            for hu in stored
            if "tissue" in hu
        ]

    def index(self, case_id: str) -> int:
        """Returns the number of the case's record, counted through all shards."""
        entry = self._entry(case_id)
        before = self.manifest["shards"][: entry["shard"]]
        return sum(shard["records"] for shard in before) + entry["record"]

    def shard_path(self, case_id: str) -> Path:
        """Returns the path of the shard that holds the case."""
        return self.shard_paths[self._entry(case_id)["shard"]]

    def image_sha256(self, case_ids: Iterable[str]) -> list[str]:
        """Returns the checksum of each case's scan, where the manifest has it.

        Data of other programs may lack it: then it is the case's place in this folder.
        """
        found = []
        for case_id in case_ids:
            match self._entry(case_id):
                case {"image": {"sha256": str(sha256)}}:
                    found.append(sha256)
                case _:
                    found.append(f"{self.manifest_sha256} {case_id}")
        return found

    def case(self, case_id: str) -> Case:
        """Reads one case. Raises `BadArguments` if unknown, `BadData` if damaged."""
        packed = self.open(case_id)
        with self.error_context(case_id):
            return packed.case()

    def open(self, case_id: str, record: bytes | None = None) -> PackedCase:
        """Opens one case and leaves its voxels packed.

        `record` is its record where that has been read already. Raises `BadData` where
        the record is damaged or another case's.
        """
        if record is None:
            number = self._entry(case_id)["record"]
            record = shards.read_record(self.shard_path(case_id), number)
        with self.error_context(case_id):
            case = open_bytes(record)
        if case.case_id != case_id:
            raise BadData(
                f"{self.shard_path(case_id)}: holds case {case.case_id} where "
                f"manifest.json says {case_id}: prepare the data again"
            )
        return case

    @contextmanager
    def error_context(self, case_id: str) -> Iterator[None]:
        """Puts shard and case before the message of a `BadData` raised inside."""
        try:
            yield
        except BadData as error:
            path = self.shard_path(case_id)
            raise BadData(f"{path}: record of case {case_id}: {error}") from error

    def verify_checksums(self) -> None:
        """Reads every shard; raises `BadData` naming those that have changed."""
        changed = []
        for path, shard in zip(self.shard_paths, self.manifest["shards"], strict=True):
            if sha256(path) != shard["sha256"]:
                changed.append(str(path))
        if changed:
            raise BadData(
                f"{', '.join(changed)}: changed since preparation (SHA-256 differs "
                "from manifest.json): prepare the data again"
            )

    @cached_property
    def _entries(self) -> dict[str, dict[str, Any]]:
        return {case["case_id"]: case for case in self.manifest["cases"]}

    def _entry(self, case_id: str) -> dict[str, Any]:
        if case_id not in self._entries:
            raise BadArguments(f"{self.place} has no case {case_id!r}")
        return self._entries[case_id]


def open_dataset(
    directory: str | os.PathLike, cache_dir: Path | None = None
) -> Dataset:
    """Opens a prepared folder and checks it without reading the records themselves.

    A folder of a bucket (gs:// or s3://) is copied first, see `storage.mirror`.
    Raises `BadData` naming the file where the folder or the manifest is missing or of
    another format, a shard is missing, truncated or of another run, or a split has
    unknown cases or a case in two parts.
    """
    with urls_in_errors():
        return _open_folder(mirrored(directory, cache_dir))


def _open_folder(directory: Path) -> Dataset:
    if not directory.is_dir():
        raise BadData(f"{directory}: no such folder of prepared data: {PREPARE}")
    manifest_path = directory / "manifest.json"
    manifest, text = _read_json(manifest_path, FORMAT_VERSION)
    if manifest.get("format") != FORMAT:
        raise BadData(
            f"{manifest_path}: not a manifest of prepared data (format "
            f"{manifest.get('format')!r}, not {FORMAT!r}): {PREPARE}"
        )
    problem = _problem_of_manifest(manifest)
    if problem:
        raise BadData(f"{manifest_path}: {problem}: {PREPARE} again")
    for shard in manifest["shards"]:
        _check_shard(directory / shard["file"], shard)
    splits_path = directory / "splits.json"
    document, _ = _read_json(splits_path, FORMAT_VERSION)
    splits: Any = document.get("splits")
    problem = _problem_of_splits(splits, {c["case_id"] for c in manifest["cases"]})
    if problem:
        raise BadData(f"{splits_path}: {problem}: {PREPARE} again")
    return Dataset(
        directory=directory,
        manifest=manifest,
        splits={
            name: {part: tuple(ids) for part, ids in parts.items()}
            for name, parts in splits.items()
        },
        manifest_sha256=hashlib.sha256(text).hexdigest(),
    )


def _read_json(path: Path, newest: int) -> tuple[dict[str, Any], bytes]:
    if not path.is_file():
        raise BadData(f"{path}: no such file, so this is no prepared data: {PREPARE}")
    text = path.read_bytes()
    content = parse_json(path, text, f"{PREPARE} again")
    version: Any = content.get("version") if isinstance(content, dict) else None
    if not _is_count(version) or version < 1:
        raise BadData(f"{path}: says no version of its format: {PREPARE} again")
    if version > newest:
        raise BadData(
            f"{path}: format version {version}, this program reads up to {newest}: "
            "update attunet_jax"
        )
    return content, text


def _check_shard(path: Path, shard: dict[str, Any]) -> None:
    if not path.is_file():
        raise BadData(f"{path}: no such shard, manifest.json names it: {PREPARE} again")
    if (size := path.stat().st_size) != shard["bytes"]:
        raise BadData(
            f"{path}: has {size} bytes, manifest.json says {shard['bytes']}: copy it "
            f"again or {PREPARE} again"
        )
    # A file whose end was lost and filled up has the right size; the library then
    # finds no records and raises no error.
    if (count := shards.count_records(path)) != shard["records"]:
        raise BadData(
            f"{path}: has {count} readable records, manifest.json says "
            f"{shard['records']}: copy it again or {PREPARE} again"
        )


def _problem_of_manifest(manifest: dict[str, Any]) -> str | None:
    """Describes the first problem of the fields that are used."""
    organs, spacing = manifest.get("organs"), manifest.get("spacing_mm")
    if not isinstance(organs, dict) or not organs:
        return "organs is no map of names to labels"
    labels = list(organs.values())
    if not all(_is_count(n) and 1 <= n <= LARGEST_ORGAN for n in labels):
        return (
            f"labels {labels} of organs are not whole numbers from 1 to {LARGEST_ORGAN}"
        )
    if len(set(labels)) != len(labels):
        return f"labels {labels} of organs are not distinct"
    ignored = manifest.get("ignore_value")
    if ignored not in (None, IGNORED):
        return f"ignore_value {ignored!r} is not {IGNORED}"
    if not (isinstance(spacing, list) and len(spacing) == 3) or not all(
        isinstance(mm, int | float) and 0 < mm < float("inf") for mm in spacing
    ):
        return f"spacing_mm {spacing} is not three lengths above 0"
    if not isinstance(manifest.get("settings"), dict):
        return "settings is no map"
    return _problem_of_cases(manifest.get("shards"), manifest.get("cases"))


def _problem_of_cases(shard_list: Any, case_list: Any) -> str | None:
    if not (isinstance(shard_list, list) and isinstance(case_list, list)):
        return "shards or cases is no list"
    for shard in shard_list:
        match shard:
            case {"file": str(file), "records": n, "bytes": size, "sha256": str()}:
                if not _FILE_NAME.fullmatch(file):
                    return f"{file!r} is no file name inside this folder"
                if not (_is_count(n) and _is_count(size)):
                    return f"records or bytes of {file} is no count"
            case _:
                return f"shard {shard} lacks file, records, bytes or sha256"
    places, ids = set(), set()
    for entry in case_list:
        match entry:
            case {"case_id": str(case_id), "shard": i, "record": j}:
                if not is_case_id(case_id) or case_id in ids:
                    return f"{case_id!r} is no case id or is there twice"
                if not (_is_count(i) and i < len(shard_list)) or not (
                    _is_count(j) and j < shard_list[i]["records"]
                ):
                    return f"case {case_id} is in shard {i}, record {j}: there is none"
            case _:
                return f"case {entry} lacks case_id, shard or record"
        if "labelled_hu" in entry:
            try:
                HuHistogram.from_json(entry["labelled_hu"])
            except ValueError as error:
                return f"labelled_hu of case {case_id} is damaged ({error})"
        ids.add(case_id)
        places.add((i, j))
    if len(places) != len(case_list):
        return "two cases share a record"
    if sum(shard["records"] for shard in shard_list) != len(case_list):
        return "shards hold another number of records than there are cases"
    if not case_list:
        return "there are no cases"
    return None


def _problem_of_splits(splits: Any, case_ids: set[str]) -> str | None:
    if not isinstance(splits, dict) or not splits:
        return "splits is no map of names to splits"
    for name, parts in splits.items():
        if not isinstance(parts, dict) or not all(
            isinstance(parts.get(part), list) for part in PARTS
        ):
            return f"split {name} is no map with lists {', '.join(PARTS)}"
        seen: dict[str, str] = {}
        for part, ids in parts.items():
            for case_id in ids:
                if not isinstance(case_id, str) or case_id not in case_ids:
                    return f"split {name}, {part}: no case {case_id!r} in manifest.json"
                if case_id in seen:
                    return (
                        f"split {name}: case {case_id} is in {seen[case_id]} and {part}"
                    )
                seen[case_id] = part
    return None


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
