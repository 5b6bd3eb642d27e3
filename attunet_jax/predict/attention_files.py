"""Attention coefficients as files beside a label map, and which of them are as asked.

The label map's record NAME.json lists them with their checksums:

    "attention": {"finished": true, "maps": {"ct_attention_gate2_sub1.nii.gz": ...}}

so they belong to the same scan, checkpoint and settings as the label map. A kill leaves
a record that says that they are not finished: they are then made again.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attunet_jax.data.attention_names import attention_file, is_attention_of
from attunet_jax.data.identity import record_of
from attunet_jax.errors import BadData
from attunet_jax.files import sha256
from attunet_jax.predict.record import read_record, write_record
from attunet_jax.volume import write_values_on_grid

if TYPE_CHECKING:
    from attunet_jax.predict.attention import AttentionMap
    from attunet_jax.predict.outputs import Output

_REDO = "--overwrite predicts again"


def missing(
    outputs: Iterable["Output"], overwrite: bool
) -> tuple[list["Output"], dict[Path, str]]:
    """Returns the outputs whose coefficients are to be written, and scan -> a line for
    each that has files of such names which are not those that were written.

    With `overwrite` all are written.
    """
    todo, refused = [], {}
    for one in outputs:
        if overwrite:
            todo.append(one)
            continue
        listed = _listed(one.label_map)
        if listed is None:
            unknown = files_of(one.label_map)
            if unknown:
                line = f"{unknown[0]}: nothing says what made it; {_REDO}"
                refused[one.scan.path] = line
            else:
                todo.append(one)
            continue
        finished, sums = listed
        paths = {one.label_map.with_name(name): sums[name] for name in sums}
        if not finished or not all(path.is_file() for path in paths):
            todo.append(one)
            continue
        changed = [path for path, sum in paths.items() if sha256(path) != sum]
        if changed:
            line = f"{changed[0]}: was changed since it was written; {_REDO}"
            refused[one.scan.path] = line
    return todo, refused


def remove_maps(label_map: Path) -> list[Path]:
    """Removes the coefficients that the record of a label map lists; returns them.

    Before another label map takes its place: they would be taken for that one's.
    """
    listed = _listed(label_map)
    paths = [label_map.with_name(name) for name in (listed[1] if listed else ())]
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def write_maps(
    label_map: Path,
    maps: Sequence["AttentionMap"],
    send: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Writes coefficients on the scan's own grid, and lists them in the record.

    Returns the files; `send` is called with each when it is written, and with the
    record. Raises `BadData` where they cannot be written.
    """
    record = read_record(label_map)
    if record is None:
        raise BadData(f"{label_map}: nothing says what made it; {_REDO}")
    several = any(one.sub_gate > 1 for one in maps)
    files = {
        attention_file(label_map, one.gate, one.sub_gate if several else None): one
        for one in maps
    }
    sums = dict.fromkeys((path.name for path in files), "")
    record["attention"] = {"finished": False, "maps": sums}
    write_record(label_map, record)
    send(record_of(label_map))
    for path, one in files.items():
        write_values_on_grid(path, one.on_scan(), one.grid)
        sums[path.name] = sha256(path)
        send(path)
    record["attention"] = {"finished": True, "maps": sums}
    write_record(label_map, record)
    send(record_of(label_map))
    return list(files)


def _listed(label_map: Path) -> tuple[bool, dict[str, str]] | None:
    """What a label map's record says: whether they are finished, and name -> checksum.

    None where it says nothing. A name that is none of this label map's is left out.
    """
    said: Any = (read_record(label_map) or {}).get("attention")
    if not isinstance(said, dict) or not isinstance(said.get("maps"), dict):
        return None
    maps = {
        name: sum
        for name, sum in said["maps"].items()
        if Path(name).name == name and is_attention_of(name, label_map)
    }
    return bool(said.get("finished")) and len(maps) == len(said["maps"]), maps


def files_of(label_map: Path) -> list[Path]:
    """The files that are named as coefficients of a label map."""
    if not label_map.parent.is_dir():
        return []
    names = sorted(path.name for path in label_map.parent.iterdir())
    return [
        label_map.with_name(name) for name in names if is_attention_of(name, label_map)
    ]
