"""The unit of work: some pairs of files in, one shard and its description out.

A pure function of its specification: the same bytes whoever runs it, wherever. What is
under its final name is whole, so a killed run goes on by redoing what is not there.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.data.records import FORMAT_VERSION, to_bytes
from attunet_jax.data.shards import read_record, write_shard
from attunet_jax.errors import BadData, one_line
from data_prep.case import Settings, origins, prepare_case, sha256
from data_prep.read import pair_files
from data_prep.sources.layout import ScanPair

PARTS = ".parts"
# Of what becomes of a file's voxels: raise it where that changes, so that no folder
# holds cases of both kinds.
_PREPARATION_VERSION = 1
VERSION = [_PREPARATION_VERSION, FORMAT_VERSION]


@dataclass(frozen=True)
class ShardSpec:
    """Which pairs go into which shard of which folder.

    `strict`: the first bad case is fatal; it does not change the bytes of a shard.
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
        return self.output / PARTS / f"{self.path.stem}.json"


def prepare_shard(spec: ShardSpec, tick: Callable[[], object] = lambda: None) -> dict:
    """Writes the shard and then its description, which it returns.

    `{"version", "file", "records", "bytes", "sha256", "cases": [...], "rejected":
    [...], "sources": {...}, "settings": {...}}`. Cases that the shard holds already,
    from files that have not changed, are copied. `tick` is called after each pair.
    Raises `BadData` where the shard cannot be written, or at a bad case if `strict`.
    """
    cases: list[dict] = []
    rejected: list[dict] = []
    kept = _kept(spec)

    def records() -> Iterator[bytes]:
        for pair in spec.pairs:
            place = {"shard": spec.index, "record": len(cases)}
            if entry := kept.get(pair.case_id):
                cases.append(entry | place)
                yield read_record(spec.path, entry["record"])
            else:
                try:
                    case, entry = prepare_case(pair, spec.settings)
                except Exception as error:  # whatever one case is, the others go on
                    reason = _reason(pair, error)
                    if spec.strict:
                        raise BadData(reason) from error
                    rejected.append({"case_id": pair.case_id, "reason": reason})
                else:
                    cases.append(entry | place)
                    record = to_bytes(case)
                    del case  # the next one needs the memory
                    yield record
                    del record
            tick()

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


def finished(spec: ShardSpec) -> dict | None:
    """The description of a shard that is there, whole, and as `spec` would make it."""
    description = _earlier(spec)
    if description is None:
        return None
    if [*description["sources"]] != [pair.case_id for pair in spec.pairs]:
        return None
    entries = {entry["case_id"]: entry for entry in description["cases"]}
    same = all(_unchanged(p, description, entries, spec.settings) for p in spec.pairs)
    return description if same else None


def _earlier(spec: ShardSpec) -> dict | None:
    """What is said of the shard that is there, if it is whole and of these settings."""
    try:
        description = json.loads(spec.description.read_text(encoding="utf-8"))
        right = (
            description["version"] == VERSION
            and description["settings"] == spec.settings.as_json()
            and description["bytes"] == spec.path.stat().st_size
            and description["sha256"] == sha256(spec.path)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return description if right else None


def _kept(spec: ShardSpec) -> dict[str, dict]:
    """Entries of cases that need not be prepared again."""
    description = _earlier(spec)
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
    """By size and time, or else, as for copies, by the checksums of the content."""
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
            entry[key] == origin
            for key, origin in origins(pair, settings.organs).items()
        )
    except OSError:
        return False


def _fingerprint(pair: ScanPair, settings: Settings) -> list[list]:
    """Name, size and time of each source file, wherever the folder is mounted."""
    found: list[list] = [["unclear"]] if pair.unclear else []
    if pair.series:
        found.append(["series", ",".join(pair.series)])
    for path in [*pair.rivals, *pair_files(pair, settings.organs)]:
        try:
            status = path.stat()
        except OSError as error:
            found.append([path.name, -1, error.errno])
        else:
            found.append([path.name, status.st_size, status.st_mtime_ns])
    return found


def _reason(pair: ScanPair, error: Exception) -> str:
    if isinstance(error, BadData):
        return one_line(error)
    if isinstance(error, OSError):
        return f"{pair.image}: {error}"
    if isinstance(error, MemoryError):
        return f"{pair.image}: memory ran out; fewer --workers leave more for each"
    return f"{pair.image}: {type(error).__name__}: {one_line(error)}"


def write_json(path: Path, content: dict) -> None:
    """Beside, then renamed: whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); make room there, then the "
            "same command goes on"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
