"""Writes shards with an Apache Beam pipeline.

Each worker gets the command line and the number of a shard, makes the plan from the
files it sees, and writes that shard. So --input and --output must be the same paths on
all workers, as on a network file system, or URLs of buckets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import apache_beam as beam  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import (  # pyright: ignore
    PipelineOptions,
)

from attunet_jax.storage.mirror import mirrored
from data_prep.output import open_output, send_shard
from data_prep.plan import Plan, make_plan, parse
from data_prep.shard import prepare_shard

RUNNERS = {
    "direct": "DirectRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}


class WriteShard(beam.DoFn):
    """Writes the shard of a number; yields (number, cases in it). Can be repeated."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*words, "--nostrict"]
        self.plan: Plan | None = None
        self.output: Path | str = ""

    def setup(self) -> None:
        arguments = parse(self.words)
        self.output = arguments.output
        arguments.input = mirrored(arguments.input, arguments.cache_dir)
        arguments.output = Path(arguments.output)
        self.plan = make_plan(arguments)

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        assert self.plan is not None
        spec, cache = self.plan.specs[element], self.plan.arguments.cache_dir
        with open_output(self.output, cache, (element, spec.count)) as stage:
            spec = replace(spec, output=stage.folder)
            stage.withdraw(spec.description)
            description = prepare_shard(spec)
            send_shard(stage, spec)
        yield element, description["records"]


def write_shards(
    words: Sequence[str], indices: Sequence[int], runner: str, options: Sequence[str]
) -> None:
    """Writes the shards of these numbers. Raises whatever the runner raises."""
    flags = [f"--runner={RUNNERS.get(runner, runner)}", *options]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(list(indices))
            # Without a reshuffle a runner may fuse a pipeline's only source with all
            # that follows, and write all shards in one place.
            | "distribute" >> beam.Reshuffle()
            | "write" >> beam.ParDo(WriteShard(list(words)))
        )
