"""What made a label map: NAME.json beside it, written and compared without JAX.

    {"format": "attunet_jax.prediction", "version": 1, "finished": true,
     "label_map": "ct.nii.gz", "sha256": ..., "scan": {"path", "sha256"}, "doubts": {},
     "run": {"workdir", "step", "sha256"}, "settings": {...}, "labels": {"0": ...},
     "software": "0.2.0", "asked": ...}

A scan, a checkpoint and the settings decide a label map: their checksums and values are
compared, so that a map of another scan or run is never taken for the one asked for.
`asked` is a checksum of the run's folder and of the flags: where it is the same, the
checkpoint and the settings are, without a look at them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attunet_jax.data.identity import PREDICTION_FORMAT, record_of
from attunet_jax.errors import BadData
from attunet_jax.files import sha256, write_text
from attunet_jax.storage.names import shown
from attunet_jax.storage.run_folder import CHECKPOINTS, place, whole_steps
from attunet_jax.volume import write_on_grid
from attunet_jax.volume.volume import Volume

FORMAT_VERSION = 1
# Written once by Orbax with each step; small, and of no other step or run.
_OF_A_STEP = ("_CHECKPOINT_METADATA", "run/metadata", "state/_METADATA")
_OF_A_STEP += ("state/manifest.ocdbt", "metrics/metrics")


@dataclass(frozen=True)
class Maker:
    """What makes label maps: a checkpoint of a run, with settings."""

    workdir: Path
    step: int
    settings: Mapping[str, Any]
    names: Mapping[int, str]  # of each value that a label map can hold
    asked: str

    def as_json(self) -> dict[str, Any]:
        """Returns these fields as a record has them."""
        run = {
            "workdir": shown(self.workdir.absolute()),
            "step": self.step,
            "sha256": checkpoint_sha256(self.workdir, self.step),
        }
        fields = {
            "run": run,
            "settings": dict(self.settings),
            "labels": {str(value): name for value, name in self.names.items()},
            "asked": self.asked,
        }
        return json.loads(json.dumps(fields))


def read_record(label_map: Path) -> dict[str, Any] | None:
    """Reads the record of a label map; None where it has none that can be used."""
    try:
        content = json.loads(record_of(label_map).read_text(encoding="utf-8"))
        known = (content["format"], content["version"], content["label_map"])
        if known != (PREDICTION_FORMAT, FORMAT_VERSION, label_map.name):
            return None
        _ = content["finished"], content["sha256"], content["scan"]["sha256"]
        _ = content["scan"]["path"], content["asked"], dict(content["labels"])
        _ = content["run"]["sha256"], content["run"]["workdir"], content["run"]["step"]
        _ = dict(content["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def write_label_map(
    label_map: Path,
    labels: Any,
    volume: Volume,
    maker: Mapping[str, Any],
    scan_sha256: str,
    doubts: Mapping[str, str] | None = None,
    send: Callable[[Path], object] = lambda path: None,
) -> None:
    """Writes a label map `[D, H, W]` and its record; `doubts` are those about the scan.

    `send` is called with each of the files when it is written.

    A kill at any moment leaves the two as they were, or a record that says that it is
    not finished: such a label map is made again. Raises `BadData` where they cannot be
    written.
    """
    record = {
        "format": PREDICTION_FORMAT,
        "version": FORMAT_VERSION,
        "finished": False,
        "label_map": label_map.name,
        "sha256": "",
        "scan": {"path": shown(volume.path), "sha256": scan_sha256},
        "doubts": dict(doubts or {}),
        **maker,
        "software": version("attunet_jax"),
    }
    write_record(label_map, record)
    send(record_of(label_map))
    write_on_grid(label_map, labels, volume.grid)
    send(label_map)
    record |= {"finished": True, "sha256": sha256(label_map)}
    write_record(label_map, record)
    send(record_of(label_map))


def asked(workdir: Path, overrides: Mapping[str, Any]) -> str:
    """Returns a checksum of the checkpoints in a run's folder and of the flags."""
    digest = hashlib.sha256(json.dumps(dict(overrides), sort_keys=True).encode())
    for step in sorted(map(str, whole_steps(workdir))):
        digest.update(f"{step} {checkpoint_sha256(workdir, int(step))}\n".encode())
    return digest.hexdigest()


def checkpoint_sha256(workdir: Path, step: int) -> str:
    """Returns a checksum that no other checkpoint has, wherever the run's folder is.

    It is that of the step's small files, which hold the time of the save, the run's
    config and the checksums of the arrays; of all files where Orbax has no such ones.
    """
    folder = place(workdir / CHECKPOINTS / str(step))
    files = [folder / name for name in _OF_A_STEP if (folder / name).is_file()]
    digest = hashlib.sha256()
    for path in files or sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def difference(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Says how the maker of a record differs from the one that is `wanted`, if so."""
    there, here = record["run"], wanted["run"]
    if there["sha256"] != here["sha256"]:
        if there["workdir"] != here["workdir"]:
            return f"made by the run {there['workdir']} (step {there['step']})"
        if there["step"] != here["step"]:
            return f"made at step {there['step']}, not {here['step']}"
        return "made by a run that was in this folder before"
    changed = [
        f"config.predict.{name} ({record['settings'].get(name)} there, "
        f"{wanted['settings'].get(name)} here)"
        for name in sorted(record["settings"].keys() | wanted["settings"].keys())
        if record["settings"].get(name) != wanted["settings"].get(name)
    ]
    return f"made with another {', '.join(changed)}" if changed else None


def write_record(label_map: Path, content: Mapping[str, Any]) -> None:
    """Writes the record of a label map. Raises `BadData` where it cannot."""
    path = record_of(label_map)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may hold what UTF-8 cannot: JSON escapes it.
        write_text(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); choose another --output"
        ) from error
