"""Turns the command line of a preparation into a plan: which shards, from which scans.

The same command line and files give the same plan on every machine, so that tasks of a
job array and workers of a pipeline need only the command line and a shard's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.data.labels import IGNORED
from attunet_jax.errors import BadArguments, BadData
from data_prep.case import Settings
from data_prep.patients import check_pattern, find_patients
from data_prep.shard import ShardSpec
from data_prep.sources import SOURCES, find_cases
from data_prep.sources.layout import Layout, ScanPair, with_series
from data_prep.splits import FOLDS
from launch import cli

CASES_PER_SHARD = 4


@dataclass(frozen=True)
class Plan:
    """What a preparation writes.

    `settings` are stored in the manifest: no folder is made with two of them.
    """

    specs: tuple[ShardSpec, ...]
    layout: Layout
    organs: dict[str, tuple[int, ...]]
    ignored: tuple[int, ...]
    settings: dict
    arguments: cli.Values

    @property
    def output(self) -> Path:
        return self.arguments.output

    @property
    def case_count(self) -> int:
        return sum(len(spec.pairs) for spec in self.specs)


def make_plan(arguments: cli.Values) -> Plan:
    """Finds the cases and divides them into shards.

    Raises `BadArguments` or `BadData` where there is nothing to prepare.
    """
    layout = find_cases(arguments.source, arguments.input)
    organs, ignored = layout.chosen(arguments.labels)
    if not organs:
        raise BadArguments(
            layout.no_organs
            or f"--source={arguments.source} does not say what labels mean: give "
            "--labels=spleen=1,pancreas=2,kidney=3"
        )
    if len(organs) >= IGNORED:
        raise BadArguments(f"--labels: {len(organs)} organs, at most {IGNORED - 1}")
    if layout.unlabelled and not layout.pairs:
        raise BadData(
            f"{arguments.input}: {len(layout.unlabelled)} scans and no label maps for "
            f"--source={arguments.source}; training needs both"
        )
    if not layout.pairs:
        raise BadData(f"{arguments.input}: no scans found for {arguments.source}")
    settings = Settings(
        organs=organs,
        spacing_mm=arguments.spacing_mm,
        blur_mm=arguments.blur_mm,
        ignore_unknown_labels=arguments.ignore_unknown_labels,
        ignored=ignored,
    )
    pairs = with_series(layout.pairs, arguments.series)
    # Before the work, what leaves a case without patient.
    named = [{"case_id": pair.case_id} for pair in pairs]
    find_patients(named, arguments.patients, arguments.patient_pattern)
    groups = _groups(pairs, arguments)
    if arguments.num_shards:
        division = {"num_shards": arguments.num_shards}
    else:
        division = {"cases_per_shard": arguments.cases_per_shard}
    return Plan(
        specs=tuple(
            ShardSpec(
                i, len(groups), group, arguments.output, settings, arguments.strict
            )
            for i, group in enumerate(groups)
        ),
        layout=layout,
        organs=dict(organs),
        ignored=ignored,
        settings=settings.as_json() | {"source": arguments.source} | division,
        arguments=arguments,
    )


def _groups(
    pairs: Sequence[ScanPair], arguments: cli.Values
) -> list[tuple[ScanPair, ...]]:
    """Cuts the pairs, which are sorted by case id, into one group for each shard."""
    count, number = len(pairs), arguments.num_shards
    if number:
        if number > count:
            raise BadArguments(
                f"--num_shards={number}: there are only {count} cases in "
                f"{arguments.input}"
            )
        bounds = [count * i // number for i in range(number + 1)]
    else:
        bounds = [*range(0, count, arguments.cases_per_shard), count]
    return [tuple(pairs[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def parse(words: Sequence[str] | None, documentation: str | None = None) -> cli.Values:
    """Returns the flags, checked one by one and against each other."""
    flags = cli.Flags(documentation)
    flags.add(
        "source",
        str,
        None,
        "Layout of the folder.",
        choices=sorted(SOURCES),
        required=True,
    )
    flags.add("input", cli.readable, None, "Folder of the scans.", required=True)
    flags.add(
        "output", cli.writable, None, "Folder for the prepared data.", required=True
    )
    flags.add_cache_dir()
    flags.add(
        "labels",
        str,
        None,
        "spleen=1,pancreas=2,kidney=3, or kidney=2+3 to merge two; ignore=4: "
        "voxels of value 4 take no part.",
    )
    flags.add(
        "spacing_mm",
        cli.spacing_mm,
        (2.0, 2.0, 2.0),
        "One number or three, D,H,W; the paper has 2.",
    )
    flags.add(
        "blur_mm",
        float,
        0.0,
        "Deviation of the Gaussian before resampling; the published scripts have 0.75.",
    )
    flags.add(
        "series",
        str,
        None,
        "UID,UID: which of several DICOM series in a folder to take.",
    )
    flags.add("ignore_unknown_labels", bool, False, "Count them as background.")
    flags.add("strict", bool, False, "Stop at the first bad or doubtful case.")
    flags.add(
        "workers",
        int,
        None,
        "Processes (default: as many as cores, fewer if memory is short).",
    )
    flags.add(
        "cases_per_shard", int, None, f"Cases in a file (default {CASES_PER_SHARD})."
    )
    flags.add("num_shards", int, None, "Or: files in the folder.")
    flags.add("shard_index", int, None, "Write only this one of --num_shards, from 0.")
    flags.add("join", bool, False, "Write no shard; all are there: join them.")
    flags.add(
        "runner",
        str,
        None,
        "An Apache Beam runner writes the shards: direct, dataflow, flink, spark.",
    )
    flags.add("beam_options", str, "", '"--flag=value ..." for Beam itself.')
    flags.add("seed", int, 0, "Of the splits.")
    flags.add("test_fraction", float, 0.2, "Share of the cases held out for testing.")
    flags.add(
        "validation_fraction",
        float,
        0.1,
        "Of the training cases, for choosing checkpoints.",
    )
    flags.add(
        "folds",
        str,
        FOLDS[0],
        "5-fold cross-validation: random, or ct82, the published folds of TCIA "
        "Pancreas-CT by the number at the end of each case's name.",
        choices=FOLDS,
    )
    flags.add(
        "patients",
        Path,
        None,
        "CSV with the columns case,patient: scans of one patient stay together in "
        "every split. Otherwise by the PatientID of DICOM, if there is one.",
    )
    flags.add(
        "patient_pattern",
        str,
        None,
        "Or a regular expression whose one group is the patient in a case's name: "
        "'(.+)_[ab]'.",
    )
    arguments = flags.parse(words)
    _check(arguments)
    if arguments.cases_per_shard is None:
        arguments.cases_per_shard = CASES_PER_SHARD
    return arguments


def _check(arguments: cli.Values) -> None:
    for name in ("workers", "cases_per_shard", "num_shards"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise BadArguments(f"--{name}={value} must be 1 or more")
    for name in ("test_fraction", "validation_fraction"):
        if not 0 <= getattr(arguments, name) < 1:
            raise BadArguments(f"--{name}={getattr(arguments, name)} must be in [0, 1)")
    if arguments.seed < 0:
        raise BadArguments(f"--seed={arguments.seed} must be 0 or more")
    if not 0 <= arguments.blur_mm < 20:
        raise BadArguments(f"--blur_mm={arguments.blur_mm} must be in [0, 20)")
    if arguments.num_shards and arguments.cases_per_shard:
        raise BadArguments("--num_shards and --cases_per_shard: give one of them")
    index = arguments.shard_index
    if index is not None:
        if not arguments.num_shards:
            raise BadArguments(f"--shard_index={index} needs --num_shards")
        if not 0 <= index < arguments.num_shards:
            raise BadArguments(
                f"--shard_index={index}: shards are 0 to {arguments.num_shards - 1}"
            )
    ways = {
        "--shard_index": index is not None,
        "--join": arguments.join,
        "--runner": bool(arguments.runner),
    }
    if sum(ways.values()) > 1:
        named = " and ".join(flag for flag, given in ways.items() if given)
        raise BadArguments(f"{named}: give one of them")
    if arguments.patient_pattern is not None:
        check_pattern(arguments.patient_pattern)
        if arguments.patients:
            raise BadArguments("--patients and --patient_pattern: give one of them")
    if arguments.beam_options and not arguments.runner:
        raise BadArguments("--beam_options needs --runner")
