"""Where label maps go, and which of those that are there are the ones asked for."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attunet_jax.data.attention_names import is_attention_name
from attunet_jax.data.identity import Found, FoundScan, record_of
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import files_sha256, is_url, sha256, write_text
from attunet_jax.predict.record import difference, read_record
from attunet_jax.storage.names import shown
from attunet_jax.storage.staging import Staging, staged
from attunet_jax.volume import ITK_ENDINGS, split_ending

LABELS = "labels.json"
_REDO = "--overwrite predicts again"


@dataclass(frozen=True)
class Output:
    """The label map of one scan."""

    scan: FoundScan
    label_map: Path

    @property
    def picture(self) -> Path:
        return self.label_map.with_name(f"{split_ending(self.label_map.name)[0]}.png")


@dataclass
class Standing:
    """What is there: `kept` is as asked, `compare` depends on run and settings.

    `refused` has the label maps that are kept and are not those asked for, by reason.
    """

    todo: list[Output] = field(default_factory=list)
    kept: list[Output] = field(default_factory=list)
    compare: list[tuple[Output, dict[str, Any]]] = field(default_factory=list)
    refused: dict[str, list[Output]] = field(default_factory=dict)

    @property
    def refused_scans(self) -> list[Path]:
        """The scans of `refused`."""
        return [one.scan.path for many in self.refused.values() for one in many]

    def lines(self) -> list[str]:
        """Returns a line for each reason in `refused`."""
        return [
            f"{_shown([str(o.label_map) for o in outputs])}: {reason}"
            for reason, outputs in self.refused.items()
        ]


@contextmanager
def open_output(
    place: Path | str, cache_dir: Path | None
) -> Iterator[tuple[Staging, Path]]:
    """Opens the folder or file that an output names, here or in a bucket.

    Yields the staging, which sends what is written, and the local path to write to. Of
    label maps and pictures that are in the bucket only name and size are here, until
    `Staging.bring` gets them; of records all.
    """
    folder, file = str(place), ""
    if is_url(place) and split_ending(folder)[1]:
        folder, _, file = folder.rpartition("/")
    with staged(
        folder if is_url(place) else place,
        cache_dir,
        bring=lambda name: name.endswith(".json"),
        flat=bool(file),
    ) as stage:
        yield stage, stage.folder / file if file else stage.folder


def outputs_of(found: Found, source: Path, output: Path) -> list[Output]:
    """Returns the label map of each scan: `output/IDENTITY.nii.gz`, or `.nrrd` and
    `.mha` for scans in these formats.

    `output` may name the file itself where `source` is one scan. Raises `BadArguments`
    where it does for a folder, where a label map would be a scan's own file, or where
    its record would be labels.json.
    """
    if split_ending(output.name)[1] and not output.is_dir():
        alone = len(found.scans) == 1 and found.scans[0].path == source
        if not alone:
            raise BadArguments(
                f"--output={output} names one file and --input={source} is a folder; "
                "name a folder for its label maps"
            )
        outputs = [Output(found.scans[0], output)]
    else:
        outputs = [
            Output(scan, output / f"{scan.identity}{_ending(scan.path)}")
            for scan in found.scans
        ]
    scans = {scan.path.resolve() for scan in found.scans}
    urls = {shown(scan.path) for scan in found.scans}
    for one in outputs:
        if one.label_map.resolve() in scans or shown(one.label_map) in urls:
            raise BadArguments(
                f"--output={output}: {one.label_map} is a scan of --input; name "
                "another folder for the label maps"
            )
        if record_of(one.label_map) == one.label_map.with_name(LABELS):
            raise BadArguments(
                f"{one.scan.path}: what made its label map would stand in {LABELS}, "
                "which names the labels; rename the scan, or name a file as --output"
            )
    return outputs


def _ending(scan: Path) -> str:
    """The format of a scan's label map: its own where ITK reads it, else NIfTI."""
    ending = split_ending(scan.name, ITK_ENDINGS)[1]
    return ending.lower() if ending and not scan.is_dir() else ".nii.gz"


def stand(
    outputs: Iterable[Output], asked: str, *, overwrite: bool, strict: bool = False
) -> Standing:
    """Sorts the outputs by what has to be done, reading checksums of what is there.

    With `strict` a label map of a scan that there were doubts about is refused.
    """
    result = Standing()
    for one in outputs:
        record = read_record(one.label_map)
        if overwrite or not one.label_map.exists():
            result.todo.append(one)
        elif record is None:
            reason = f"nothing says what made it (no NAME.json of it); {_REDO}"
            result.refused.setdefault(reason, []).append(one)
        elif not record["finished"]:
            result.todo.append(one)
        elif reason := _not_this(one, record):
            result.refused.setdefault(f"{reason}; {_REDO}", []).append(one)
        elif strict and record.get("doubts"):
            reason = "; ".join(map(str, dict(record["doubts"]).values()))
            reason = f"its scan is doubtful: {reason} (refused by --strict)"
            result.refused.setdefault(reason, []).append(one)
        elif record["asked"] == asked:
            result.kept.append(one)
        else:
            result.compare.append((one, record))
    return result


def _not_this(one: Output, record: Mapping[str, Any]) -> str | None:
    """Says so where the label map is another scan's, or no longer the one recorded."""
    try:
        if sha256(one.label_map) != record["sha256"]:
            return "was changed since it was predicted"
        if files_sha256(one.scan.files) != record["scan"]["sha256"]:
            if _same_place(record["scan"]["path"], one.scan.path):
                return "the scan was another file when it was predicted"
            return f"is that of another scan ({record['scan']['path']})"
    except OSError as error:
        return f"cannot be compared ({error.filename}: {error.strerror})"
    return None


def _same_place(stored: str, scan: Path) -> bool:
    here = shown(scan)
    if is_url(stored) or is_url(here):
        return stored == here
    return Path(stored).absolute() == scan.absolute()


def compare(standing: Standing, wanted: Mapping[str, Any]) -> None:
    """Moves what is `wanted` from `compare` to `kept`.

    Raises `BadArguments` for others: nothing is predicted beside label maps of another
    run or other settings.
    """
    others: dict[str, list[str]] = {}
    for one, record in standing.compare:
        if reason := difference(record, wanted):
            others.setdefault(reason, []).append(str(one.label_map))
        else:
            standing.kept.append(one)
    standing.compare = []
    for reason, names in others.items():
        raise BadArguments(
            f"{_shown(names)}: {reason}; choose another --output, or {_REDO}"
        )


def write_labels(
    folder: Path, names: Mapping[int, str], redone: Iterable[Output]
) -> None:
    """Writes `folder/labels.json`, unless it is there; see `check_labels`.

    While label maps of `redone` still have other labels, the file is taken away
    instead: each label map's own record says its labels.
    """
    redone = list(redone)
    check_labels(folder, names, redone)
    if _labels_of(folder / LABELS) == _as_labels(names):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(_to_be_redone(one, names) for one in redone):
            (folder / LABELS).unlink(missing_ok=True)
        else:
            write_text(folder / LABELS, json.dumps(names, indent=2) + "\n")
    except OSError as error:
        raise BadData(
            f"{folder / LABELS}: cannot be written ({error.strerror}); choose another "
            "--output"
        ) from error


def _to_be_redone(one: Output, names: Mapping[int, str]) -> bool:
    if not one.label_map.exists():
        return False
    record = read_record(one.label_map)
    return record is None or record["labels"] != _as_labels(names)


def check_labels(
    folder: Path, names: Mapping[int, str], redone: Iterable[Output]
) -> None:
    """Raises `BadArguments` where `folder` holds label maps with other labels.

    `names` has the name of each value that a label map can hold. Those of `redone` do
    not count: they are written anew.
    """
    labels, listed = _as_labels(names), _labels_of(folder / LABELS)
    if listed == labels or not folder.is_dir():
        return
    mine = {one.label_map.absolute() for one in redone}
    for path in sorted(folder.rglob("*")):
        if not split_ending(path.name)[1] or path.absolute() in mine:
            continue
        if is_attention_name(path.name):
            continue
        record = read_record(path)
        there = record["labels"] if record else listed
        if there is not None and there != labels:
            shown = ", ".join(str(name) for name in there.values())
            raise BadArguments(
                f"{folder}: holds label maps of other labels ({path.name}: {shown}); "
                "choose another --output"
            )


def _as_labels(names: Mapping[int, str]) -> dict[str, str]:
    return {str(value): name for value, name in names.items()}


def _labels_of(path: Path) -> dict[str, str] | None:
    """The labels of a labels.json; None where it is missing, {} where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
