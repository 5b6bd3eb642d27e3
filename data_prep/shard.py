"""Writes one shard, the unit of work: several cases in one ArrayRecord file.

A shard is a pure function of its `ShardSpec`: its bytes do not depend on the process or
machine that writes it. A file under its final name is complete, so a run that was
killed continues by writing the shards that are missing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.data.records import FORMAT_VERSION, to_bytes
from attunet_jax.data.shards import read_record, write_shard
from attunet_jax.errors import BadData, one_line
from attunet_jax.files import sha256, write_text
from attunet_jax.storage.names import with_urls
from data_prep.case import Settings, prepare_case, source_entries
from data_prep.read import pair_files
from data_prep.sources.layout import ScanPair

DESCRIPTIONS = ".parts"  # folder of the descriptions of shards, below --output
# Increase it when the voxels made of a file change, so that no folder holds cases of
# both kinds.
_PREPARATION_VERSION = 2
VERSION = [_PREPARATION_VERSION, FORMAT_VERSION]


@dataclass(frozen=True)
class ShardSpec:
    """Which pairs go into which shard of which folder.

    With `strict` the first bad or doubtful case is fatal; the bytes of a shard stay the
    same.
    """

    index: int
    count: int
    pairs: tuple[ScanPair, ...]
    output: Path
    settings: Settings
    strict: bool = False

    @property
    def path(self) -> Path:
        return self.output / f"cases-{self.index:05}-of-{self.count:05}.array_record"

    @property
    def description(self) -> Path:
        return self.output / DESCRIPTIONS / f"{self.path.stem}.json"


def prepare_shard(
    spec: ShardSpec, on_case_done: Callable[[], object] = lambda: None
) -> dict:
    """Writes the shard, then its description, and returns the description.

    `{"version", "file", "records", "bytes", "sha256", "cases": [...], "rejected":
    [...], "sources": {...}, "settings": {...}}`. Cases whose files have not changed
    since the shard was last written are copied from it. `on_case_done` is called after
    each pair. Raises `BadData` where the shard cannot be written, or at the first bad
    case with `strict`.
    """
    cases: list[dict] = []
    rejected: list[dict] = []
    reusable = _reusable_entries(spec)

    def records() -> Iterator[bytes]:
        for pair in spec.pairs:
            place = {"shard": spec.index, "record": len(cases)}
            if entry := reusable.get(pair.case_id):
                cases.append(entry | place)
                yield read_record(spec.path, entry["record"])
            else:
                try:
                    case, entry = prepare_case(pair, spec.settings)
                    if spec.strict:
                        refuse_doubtful(entry, str(pair.image))
                except Exception as error:  # of any kind: the other cases continue
                    reason = _reason(pair, error)
                    if spec.strict:
                        raise BadData(reason) from error
                    rejected.append({"case_id": pair.case_id, "reason": reason})
                else:
                    cases.append(entry | place)
                    record = to_bytes(case)
                    del case  # frees its memory for the next one
                    yield record
                    del record
            on_case_done()

    sources = {pair.case_id: _fingerprint(pair, spec.settings) for pair in spec.pairs}
    try:
        spec.description.parent.mkdir(parents=True, exist_ok=True)
        count = write_shard(spec.path, records())
    except OSError as error:
        raise BadData(
            f"{spec.path}: cannot be written ({error.strerror}); choose another "
            "--output"
        ) from None
    description = {
        "version": VERSION,
        "file": spec.path.name,
        "records": count,
        "bytes": spec.path.stat().st_size,
        "sha256": sha256(spec.path),
        "cases": cases,
        "rejected": rejected,
        "sources": sources,
        "settings": spec.settings.as_json(),
    }
    write_json(spec.description, description)
    return description


def read_description(
    spec: ShardSpec, is_whole: Callable[[Path], bool] = lambda path: False
) -> dict | None:
    """Returns the description of a shard that is complete and as `spec` would make it.

    None where the shard has to be written, for the first time or again. `is_whole` says
    of which shards the size is enough, because their content is in a bucket.
    """
    description = _read_valid_description(spec, is_whole)
    if description is None:
        return None
    if [*description["sources"]] != [pair.case_id for pair in spec.pairs]:
        return None
    entries = {entry["case_id"]: entry for entry in description["cases"]}
    same = all(_unchanged(p, description, entries, spec.settings) for p in spec.pairs)
    return description if same else None


def _read_valid_description(
    spec: ShardSpec, is_whole: Callable[[Path], bool] = lambda path: False
) -> dict | None:
    """As `read_description`, of a shard whose source files may have changed."""
    try:
        description = json.loads(spec.description.read_text(encoding="utf-8"))
        valid = (
            description["version"] == VERSION
            and description["settings"] == spec.settings.as_json()
            and description["bytes"] == spec.path.stat().st_size
            and (is_whole(spec.path) or description["sha256"] == sha256(spec.path))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return description if valid else None


def _reusable_entries(spec: ShardSpec) -> dict[str, dict]:
    """Entries by case id of the cases that need not be prepared again."""
    description = _read_valid_description(spec)
    if description is None:
        return {}
    entries = {entry["case_id"]: entry for entry in description["cases"]}
    return {
        pair.case_id: entries[pair.case_id]
        for pair in spec.pairs
        if pair.case_id in entries
        and _unchanged(pair, description, entries, spec.settings)
    }


def _unchanged(
    pair: ScanPair, description: dict, entries: dict[str, dict], settings: Settings
) -> bool:
    """Compares size and time of each file; for copies of files, the checksums."""
    before = description["sources"].get(pair.case_id)
    now = _fingerprint(pair, settings)
    if now == before:
        return True
    entry = entries.get(pair.case_id)
    if (
        before is None
        or entry is None
        or [f[:2] for f in now] != [f[:2] for f in before]
    ):
        return False
    try:
        return all(
            entry[key] == source
            for key, source in source_entries(pair, settings.organs).items()
        )
    except OSError:
        return False


def _fingerprint(pair: ScanPair, settings: Settings) -> list[list]:
    """Name, size and time of each source file, wherever its folder is mounted."""
    found: list[list] = [["unclear"]] if pair.unclear else []
    if pair.series:
        found.append(["series", ",".join(pair.series)])
    for path in [*pair.candidates, *pair_files(pair, settings.organs)]:
        try:
            status = path.stat()
        except OSError as error:
            found.append([path.name, -1, error.errno])
        else:
            found.append([path.name, status.st_size, status.st_mtime_ns])
    return found


def _reason(pair: ScanPair, error: Exception) -> str:
    """One line for rejected.json."""
    return with_urls(_reason_here(pair, error))


def _reason_here(pair: ScanPair, error: Exception) -> str:
    if isinstance(error, BadData):
        return one_line(error)
    if isinstance(error, OSError):
        return f"{pair.image}: {error}"
    if isinstance(error, MemoryError):
        return f"{pair.image}: out of memory; fewer --workers leave more for each"
    return f"{pair.image}: {type(error).__name__}: {one_line(error)}"


def refuse_doubtful(entry: Mapping, image: str) -> None:
    """Raises `BadData` for a case whose scan may be no CT, or its label map wrong."""
    for text in entry.get("doubts", {}).values():
        raise BadData(f"{image}: {text} (refused by --strict)")


def write_json(path: Path, content: dict) -> None:
    """Writes the file atomically. Raises `BadData` where it cannot be written."""
    try:
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); make room there, then the "
            "same command continues"
        ) from None
