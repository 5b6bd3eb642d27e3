"""What the program knows of a study: a line for each fact, none where nothing is known.

Each function returns what is the same for all networks once, else a line for each.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.evaluate.page.study.runs import Run, Source, data_of

BLANK = "to be filled by the authors"


def fields(group: str, runs: Mapping[str, Run]) -> list[str]:
    found = dict.fromkeys(
        f"{group}.{name}"
        for run in runs.values()
        if isinstance(fields := run.value(group), dict)
        for name in fields
    )
    return list(found)


def agreed(texts: Mapping[str, str]) -> tuple[str, ...]:
    """One line where all agree, else a line for each network that has one."""
    texts = {name: text for name, text in texts.items() if text}
    if len(set(texts.values())) == 1:
        return (next(iter(texts.values())),)
    return tuple(f"{name}: {text}" for name, text in texts.items())


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sources(dataset: Dataset | None) -> tuple[str, ...]:
    if dataset is None:
        return ()
    layout = dataset.manifest["settings"].get("source", "?")
    return (
        f"{len(dataset.case_ids)} cases in {dataset.place} (layout {layout})",
        f"manifest SHA-256 {dataset.manifest_sha256}",
    )


def preprocessing(runs: Mapping[str, Run], dataset: Dataset | None) -> tuple[str, ...]:
    if dataset is not None:
        s = dataset.manifest["settings"]
        facts = [
            f"resampled to {_lengths(dataset.manifest['spacing_mm'])} mm (D × H × W)"
        ]
        if s.get("blur_mm"):
            facts.append(f"smoothed by a Gaussian of {s['blur_mm']} mm")
        if s.get("hu_range"):
            facts.append("clipped to {} to {} HU".format(*s["hu_range"]))
        return tuple(facts)
    return agreed(
        {
            name: f"resampled to {_lengths(run.stored['spacing_mm'])} mm (D × H × W)"
            for name, run in runs.items()
            if run.stored.get("spacing_mm")
        }
    )


def _lengths(values: Any) -> str:
    try:
        return " × ".join(f"{float(value):g}" for value in values)
    except (TypeError, ValueError):
        return str(values)


def normalisation(runs: Mapping[str, Run]) -> tuple[str, ...]:
    def of(run: Run) -> str:
        way = run.value("data.normalisation")
        numbers = run.stored.get("normalisation")
        if isinstance(numbers, dict):
            values = ", ".join(
                f"{key} {value:.4g}"
                for key, value in numbers.items()
                if isinstance(value, int | float)
            )
            return f"{way}: {values}"
        return "" if way is None else str(way)

    return agreed({name: of(run) for name, run in runs.items()})


def missing(rows: Sequence[Mapping], metrics: Sequence[str]) -> tuple[str, ...]:
    if not rows:
        return ()
    undefined = sum(row.get(metric) is None for row in rows for metric in metrics)
    return (
        f"{undefined} of {len(rows) * len(metrics)} scores are undefined (an organ "
        "is in one map alone, or in none); they are counted, and in no mean",
    )


def acquisition(dataset: Dataset | None) -> tuple[str, ...]:
    spacings = [
        case["original_spacing_mm"]
        for case in (dataset.manifest["cases"] if dataset else ())
        if isinstance(case.get("original_spacing_mm"), list)
        and len(case["original_spacing_mm"]) == 3
    ]
    if not spacings:
        return ()
    lows, highs = (
        tuple(f(axis) for axis in zip(*spacings, strict=True)) for f in (min, max)
    )
    return (
        f"slices {lows[0]:.3g} to {highs[0]:.3g} mm apart, pixels "
        f"{min(lows[1:]):.3g} to {max(highs[1:]):.3g} mm; scanners, phases and "
        f"doses: {BLANK}",
    )


def splits(sources: Mapping[str, Source], dataset: Dataset | None) -> tuple[str, ...]:
    def of(source: Source, run: Run) -> str:
        tested = len(source.case_ids)
        split = run.value("data.split")
        theirs = _training_data(run, dataset)
        parts = theirs.splits.get(str(split)) if theirs else None
        if parts is None:
            return f"split {split}; {tested} cases scored here"
        counts = ", ".join(f"{part} {len(ids)}" for part, ids in parts.items())
        return f"split {split}: {counts}; {tested} cases scored here"

    return agreed({n: of(s, s.run) for n, s in sources.items() if s.run})


def _training_data(run: Run, dataset: Dataset | None) -> Dataset | None:
    """The data that the run was trained on, where it is here."""
    if dataset and run.stored.get("manifest_sha256") == dataset.manifest_sha256:
        return dataset
    return data_of(run, None)


def apart(dataset: Dataset | None) -> tuple[str, ...]:
    if dataset is None:
        return ()
    try:
        text = (dataset.directory / "splits.json").read_text(encoding="utf-8")
        patients = json.loads(text).get("patients")
    except (OSError, ValueError, AttributeError):
        return ()
    if not isinstance(patients, dict) or "told_apart_by" not in patients:
        return ()
    return (f"patients: {patients.get('count')}; {patients['told_apart_by']}",)


def leaks(sources: Mapping[str, Source], dataset: Dataset | None) -> tuple[str, ...]:
    """Compares checksums of the images that a run saw with those it was tested on."""

    def of(source: Source, run: Run) -> str:
        theirs = _training_data(run, dataset)
        parts = theirs.splits.get(str(run.value("data.split"))) if theirs else None
        if theirs is None or parts is None or dataset is None:
            return ""
        ids = set(dataset.case_ids)
        tested = sorted(source.case_ids & ids)
        trained = (*parts["train"], *parts["validation"])
        seen = set(theirs.image_sha256(trained))
        again = [
            case_id
            for case_id, digest in zip(
                tested, dataset.image_sha256(tested), strict=True
            )
            if digest in seen
        ]
        if again:
            return (
                f"{len(again)} of {len(tested)} test scans were trained or validated "
                f"on, such as {again[0]}: their scores are not those of new scans"
            )
        return (
            f"none: the SHA-256 of {len(tested)} test scans is that of none of "
            f"{len(trained)} scans for training and validation"
        )

    return agreed({n: of(s, s.run) for n, s in sources.items() if s.run})


def software(runs: Mapping[str, Run]) -> tuple[str, ...]:
    def of(run: Run) -> str:
        packages = run.environment.get("packages")
        versions = packages if isinstance(packages, dict) else {}
        words = [f"{name} {version}" for name, version in versions.items()]
        if python := run.environment.get("python"):
            words.insert(0, f"Python {python}")
        if ours := run.stored.get("version"):
            words.insert(0, f"attunet_jax {ours}")
        return ", ".join(words)

    return agreed({name: of(run) for name, run in runs.items()})


def initial(runs: Mapping[str, Run]) -> tuple[str, ...]:
    return agreed(
        {
            name: f"from {source}" if source else "at random, from the seed"
            for name, run in runs.items()
            if (source := run.value("init_from")) is not None
        }
    )


def seeds(networks: Mapping[str, Sequence[Mapping]]) -> Iterable[str]:
    for name, rows in networks.items():
        seeds = sorted(
            {row["seed"] for row in rows if isinstance(row.get("seed"), int)}
        )
        if seeds:
            yield f"{name}: trained with the seeds {', '.join(map(str, seeds))}"


def hardware(runs: Mapping[str, Run]) -> tuple[str, ...]:
    def of(run: Run) -> str:
        devices = run.environment.get("devices")
        if not isinstance(devices, list) or not devices:
            return ""
        kinds = dict.fromkeys(map(str, devices))
        words = ", ".join(f"{devices.count(kind)} × {kind}" for kind in kinds)
        return f"{words}, processes: {run.environment.get('processes', 1)}"

    return agreed({name: of(run) for name, run in runs.items()})


def training_time(runs: Mapping[str, Run]) -> tuple[str, ...]:
    """How long each run trained, of the last account in metrics.jsonl."""

    def of(run: Run) -> str:
        accounts = [row for row in run.metrics if "goodput" in row]
        if not accounts:
            return ""
        last = accounts[-1]
        try:
            seconds = sum(
                float(value)
                for name, value in last.items()
                if name.startswith("time_") and name != "time_not_running_s"
            )
            share, starts = float(last["goodput"]), int(last["starts"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return ""  # anybody may have edited the file
        return (
            f"{seconds / 3600:.2f} h in {starts} start{'s' * (starts != 1)}, "
            f"{share:.1%} of it in steps (goodput)"
        )

    return agreed({name: of(run) for name, run in runs.items()})


def code(runs: Mapping[str, Run]) -> tuple[str, ...]:
    return agreed(
        {
            name: f"commit {commit}"
            + (" with files changed since" if commit.endswith("+") else "")
            for name, run in runs.items()
            if isinstance(commit := run.environment.get("commit"), str) and commit
        }
    )


def tested(networks: Mapping[str, Sequence[Mapping]]) -> tuple[str, ...]:
    return agreed(
        {
            name: f"{len({row['case_id'] for row in rows})} cases, "
            f"{len({row['organ'] for row in rows})} organs"
            for name, rows in networks.items()
        }
    )
