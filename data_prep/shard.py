"""The unit of work: some pairs of files in, one shard and its description out.

A pure function of its specification: the same bytes whoever runs it, wherever. What is
under its final name is whole, so a killed run goes on by redoing what is not there.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.data.records import to_bytes
from attunet_jax.data.shards import write_shard
from attunet_jax.errors import BadData, one_line
from data_prep.case import Settings, prepare_case, sha256
from data_prep.read import pair_files
from data_prep.sources.layout import ScanPair

PARTS = ".parts"


@dataclass(frozen=True)
class ShardSpec:
    """Which pairs go into which shard of which folder."""

    index: int
    count: int
    pairs: tuple[ScanPair, ...]
    output: Path
    settings: Settings

    @property
    def path(self) -> Path:
        return self.output / f"cases-{self.index:05}-of-{self.count:05}.array_record"

    @property
    def description(self) -> Path:
        return self.output / PARTS / f"{self.path.stem}.json"


def prepare_shard(spec: ShardSpec, tick: Callable[[], object] = lambda: None) -> dict:
    """Writes the shard and then its description, which it returns.

    `{"file", "records", "bytes", "sha256", "cases": [...], "rejected": [...],
    "sources": {...}, "settings": {...}}`. `tick` is called after each pair.
    """
    cases: list[dict] = []
    rejected: list[dict] = []

    def records() -> Iterator[bytes]:
        for pair in spec.pairs:
            try:
                case, entry = prepare_case(pair, spec.settings)
            except BadData as error:
                rejected.append({"case_id": pair.case_id, "reason": one_line(error)})
            except OSError as error:
                rejected.append(
                    {"case_id": pair.case_id, "reason": f"{pair.image}: {error}"}
                )
            else:
                cases.append(entry | {"shard": spec.index, "record": len(cases)})
                yield to_bytes(case)
            tick()

    spec.description.parent.mkdir(parents=True, exist_ok=True)
    spec.description.unlink(missing_ok=True)
    count = write_shard(spec.path, records())
    description = {
        "file": spec.path.name,
        "records": count,
        "bytes": spec.path.stat().st_size,
        "sha256": sha256(spec.path),
        "cases": cases,
        "rejected": rejected,
        "sources": fingerprints(spec),
        "settings": spec.settings.as_json(),
    }
    write_json(spec.description, description)
    return description


def finished(spec: ShardSpec) -> dict | None:
    """The description of a shard that is there, whole, and as `spec` would make it."""
    try:
        description = json.loads(spec.description.read_text(encoding="utf-8"))
        whole = spec.path.stat().st_size == description["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    if not whole or description["sources"] != fingerprints(spec):
        return None
    if description.get("settings") != spec.settings.as_json():
        return None
    return description if sha256(spec.path) == description["sha256"] else None


def fingerprints(spec: ShardSpec) -> dict[str, list]:
    """Size and time of each source file: a mended file is prepared again."""
    found = {}
    for pair in spec.pairs:
        for path in pair_files(pair, spec.settings.organs):
            status = path.stat()
            found[str(path)] = [status.st_size, status.st_mtime_ns]
    return found


def write_json(path: Path, content: dict) -> None:
    """Beside, then renamed."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
