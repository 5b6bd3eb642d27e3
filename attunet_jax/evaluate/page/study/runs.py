"""What a run's folder tells of how its network came to be; read without JAX."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.page.room import RUN_BYTES, fitting, left_out_text
from attunet_jax.storage.mirror import copied
from attunet_jax.storage.names import shown


@dataclass(frozen=True)
class Run:
    """A trained run; what its folder lacks is empty."""

    workdir: Path
    stored: Mapping[str, Any] = field(default_factory=dict)  # config.json
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()  # rows of metrics.jsonl

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config."""
        config = self.stored.get("config")
        return config if isinstance(config, dict) else {}

    def value(self, name: str) -> Any:
        """Returns the config field `group.field`; None where it is not there."""
        found: Any = self.config
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found


@dataclass(frozen=True)
class Source:
    """An evaluation that a network's rows come from, and the run that it is of."""

    folder: Path
    run: Run | None
    case_ids: frozenset[str]  # that were evaluated


def read_sources(
    networks: Mapping[str, Sequence[Mapping]],
    folders: Mapping[str, Sequence[Path]],
    workdirs: Mapping[str, Sequence[Path]],
) -> dict[str, list[Source]]:
    """Reads what the folders of each network's evaluations and runs tell.

    `workdirs` are the runs of `folders`, in their order, where these lie elsewhere.
    """
    found: dict[str, list[Source]] = {}
    for name, rows in networks.items():
        given, runs = folders.get(name, ()), workdirs.get(name, ())
        every = frozenset(str(row["case_id"]) for row in rows)
        found[name] = []
        for i, folder in enumerate(given):
            of_folder = frozenset(
                str(row.get("case_id")) for row in _lines(folder / "cases.jsonl")
            )
            run = read_run(runs[i] if i < len(runs) else folder)
            found[name].append(Source(folder, run, (of_folder & every) or every))
    return found


def labelled(sources: Mapping[str, Sequence[Source]]) -> dict[str, Source]:
    """Names each source that has a run: as its network, with its run if of several."""
    return {
        name if len(of_name) == 1 else f"{name}, {_run_name(source.run)}": source
        for name, of_name in sources.items()
        for source in of_name
        if source.run
    }


def _run_name(run: Run) -> str:
    return "/".join(Path(shown(run.workdir)).parts[-2:])


def read_run(folder: Path) -> Run | None:
    """Reads the run that `folder` is or is an evaluation of; None if there is none.

    What is damaged in it is passed over: a report does not fail for it.
    """
    folder = folder.resolve()
    places = [folder, *list(folder.parents)[1:2]]  # RUN/evaluation/PART
    for place in places:
        if (place / "config.json").is_file():
            return Run(
                place,
                _json(place / "config.json"),
                _json(place / "environment.json"),
                tuple(_lines(place / "metrics.jsonl")),
            )
    return None


def data_of(run: Run | None, given: Path | None) -> Dataset | None:
    """Opens the prepared data that was `given`, else the run's own, where it is here.

    Raises `BadArguments` or `BadData` for what was given.
    """
    if given is not None:
        return open_dataset(given)
    directory = run.value("data.directory") if run else None
    if not isinstance(directory, str) or not directory:
        return None
    try:
        here = copied(directory)  # a report is no reason to copy a bucket
        dataset = open_dataset(here) if here else None
    except (BadArguments, BadData, OSError):
        return None
    trained_on = run.stored.get("manifest_sha256") if run else None
    if dataset is None or dataset.manifest_sha256 != trained_on:
        return None
    return dataset


def config_section(sources: Mapping[str, Source]) -> str:
    """Returns the resolved config of each run."""
    parts, left_out, _ = fitting(
        (
            f"<details><summary>{escape(name)}</summary><pre tabindex=0>"
            f"{escape(json.dumps(source.run.config, indent=2, ensure_ascii=False))}"
            "</pre></details>\n"
            for name, source in sources.items()
            if source.run and source.run.config
        ),
        RUN_BYTES,
    )
    if not parts:
        return ""
    return (
        "<h2 id=config>Configuration</h2>\n"
        "<p class=note>Every field as the run was trained with it.</p>\n"
        + "".join(parts)
        + left_out_text(left_out, "configs are", "each is in its run's config.json")
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _lines(path: Path) -> list[Mapping[str, Any]]:
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut short by a kill
        if isinstance(row, dict):
            rows.append(row)
    return rows
