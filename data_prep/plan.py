"""The command line of a preparation in; which shards it writes, from what, out.

The same words on the same files are the same plan on every machine: so tasks of a job
array and workers of a pipeline need no more than the words and the number of a shard.

`2` or `2,1.5,1.5` as a user types it in, the spacing D, H, W in mm out.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData
from data_prep.case import Settings
from data_prep.flags import Parser
from data_prep.shard import ShardSpec
from data_prep.sources import SOURCES
from data_prep.sources.layout import ScanPair, parse_organs, with_series
from data_prep.splits import FOLDS


def parse_spacing(text: str) -> tuple[float, float, float]:
    """For argparse: raises `ArgumentTypeError` saying what is wanted."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(0.1 <= n <= 50 for n in numbers):
        raise argparse.ArgumentTypeError("one or three numbers from 0.1 to 50")
    return numbers[0], numbers[1], numbers[2]


CASES_PER_SHARD = 4


@dataclass(frozen=True)
class Plan:
    """`remembered` is what the manifest notes, so that nobody mixes settings."""

    specs: tuple[ShardSpec, ...]
    unlabelled: tuple[ScanPair, ...]
    organs: dict[str, tuple[int, ...]]
    remembered: dict
    arguments: argparse.Namespace

    @property
    def output(self) -> Path:
        return self.arguments.output

    @property
    def case_count(self) -> int:
        return sum(len(spec.pairs) for spec in self.specs)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Raises `BadArguments` or `BadData` where there is nothing to be prepared."""
    layout = SOURCES[arguments.source](arguments.input)
    organs = parse_organs(arguments.labels) if arguments.labels else layout.organs
    if not organs:
        raise BadArguments(
            f"--source={arguments.source} does not say what labels mean: give "
            "--labels=spleen=1,pancreas=2,kidney=3"
        )
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
    )
    pairs = with_series(layout.pairs, arguments.series)
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
        unlabelled=tuple(layout.unlabelled),
        organs=dict(organs),
        remembered=settings.as_json() | {"source": arguments.source} | division,
        arguments=arguments,
    )


def _groups(
    pairs: Sequence[ScanPair], arguments: argparse.Namespace
) -> list[tuple[ScanPair, ...]]:
    """Pairs by case id, cut into runs: of one length, or `num_shards` about equal."""
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


def parse(words: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """The flags, checked one by one and against each other."""
    parser = Parser("python -m data_prep.prepare", description)
    add = parser.add_argument
    add("--source", required=True, choices=sorted(SOURCES), help="layout of the folder")
    add("--input", required=True, type=Path, help="folder of the scans")
    add("--output", required=True, type=Path, help="folder for the prepared data")
    add("--labels", help="spleen=1,pancreas=2,kidney=3 or kidney=2+3 to merge")
    add(
        "--spacing_mm",
        type=parse_spacing,
        default=(2.0, 2.0, 2.0),
        help="one number or three, D,H,W (default 2, as in the paper)",
    )
    add(
        "--blur_mm",
        type=float,
        default=0.0,
        help="Gaussian before resampling (default 0; the published scripts 0.75)",
    )
    add("--series", help="UID,UID: which of several DICOM series in one folder to take")
    add("--ignore_unknown_labels", action="store_true", help="count them as background")
    add("--strict", action="store_true", help="stop at the first bad case")
    add(
        "--workers",
        type=int,
        help="processes (default: as many as cores, fewer if memory is short)",
    )
    add(
        "--cases_per_shard",
        type=int,
        help=f"cases in a file (default {CASES_PER_SHARD})",
    )
    add("--num_shards", type=int, help="or: files in the folder")
    add("--shard_index", type=int, help="write only this one of --num_shards, from 0")
    add("--join", action="store_true", help="write no shard; all are there: join them")
    add(
        "--runner",
        help="an Apache Beam runner writes the shards: direct, dataflow, flink, spark",
    )
    add("--beam_options", default="", help='"--flag=value ..." for Beam itself')
    add("--seed", type=int, default=0, help="of the splits (default 0)")
    add("--test_fraction", type=float, default=0.2, help="default 0.2")
    add(
        "--validation_fraction",
        type=float,
        default=0.1,
        help="of the training pool, for choosing checkpoints (default 0.1)",
    )
    add(
        "--folds",
        choices=FOLDS,
        default=FOLDS[0],
        help="of 5-fold cross-validation: random, or ct82, the published folds of TCIA "
        "Pancreas-CT by the number at the end of each case's name",
    )
    arguments = parser.parse_args(words)
    _check(arguments)
    if arguments.cases_per_shard is None:
        arguments.cases_per_shard = CASES_PER_SHARD
    return arguments


def _check(arguments: argparse.Namespace) -> None:
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
    if arguments.beam_options and not arguments.runner:
        raise BadArguments("--beam_options needs --runner")
