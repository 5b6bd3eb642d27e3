"""Preparation as an Apache Beam pipeline: numbers of shards in, the shards written.

Workers get the words of the command line and a number, make the plan anew from the
files they see, and write that shard: the function is that of every other way. They need
to see --input and --output under the names given, as on a network file system.
"""

from collections.abc import Iterator, Sequence

import apache_beam as beam  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import (  # pyright: ignore
    PipelineOptions,
)

from data_prep.plan import Plan, make_plan, parse
from data_prep.shard import prepare_shard

RUNNERS = {
    "direct": "DirectRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}


class WriteShard(beam.DoFn):
    """The number of a shard to how many cases are in it; it may be written again."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*words, "--nostrict"]
        self.plan: Plan | None = None

    def setup(self) -> None:
        self.plan = make_plan(parse(self.words))

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        assert self.plan is not None
        part = prepare_shard(self.plan.specs[element])
        yield element, part["records"]


def write_shards(
    words: Sequence[str], indices: Sequence[int], runner: str, options: Sequence[str]
) -> None:
    """Returns when all are written. Raises whatever the runner raises."""
    flags = [f"--runner={RUNNERS.get(runner, runner)}", *options]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(list(indices))
            # A shard each to whoever is free: without it a runner may keep a pipeline's
            # only source and all that follows it in one place.
            | "spread" >> beam.Reshuffle()
            | "write" >> beam.ParDo(WriteShard(list(words)))
        )
