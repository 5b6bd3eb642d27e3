r"""Compares evaluated networks on the same cases, in pairs.

    python -m launch.compare RUNS/80_20/unet RUNS/80_20/attention_unet
    python -m launch.compare RUN_A RUN_B nnunet_scores --organs=pancreas --output=DIR
    python -m launch.compare unet=RUN_1 unet=RUN_2 attention=RUN_3 attention=RUN_4

RUN is a run's workdir (its evaluation/test) or a folder with cases.jsonl, the --output
of launch.evaluate or launch.score; NAME=FOLDER gives it a name, and folders of one name
are one network trained with several seeds. Prints mean ± deviation with a 95 % interval
of each network; of each pair the mean difference with its interval, Wilcoxon's p, the
probability that "the second is better" is false, and the smallest difference that so
many cases could have shown. From three networks on they are ranked. RUN and --output
may be in a bucket, gs:// or s3://: of a run there only the scores are copied here.
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.storage.names import shown
from attunet_jax.storage.outputs import staged_files
from launch import cli
from launch.flag_types import names_of

# The paper's of the pancreas, and the distance that most others report.
USUAL_METRICS = ("dice", "precision", "recall", "surface_distance_mm", "hausdorff95_mm")

FLAGS = cli.Flags(__doc__)
FLAGS.add_words("runs", "RUN", 2, "Evaluated runs, or folders with cases.jsonl.")
FLAGS.add("output", cli.writable, None, "Folder for compare.md, .csv, .json and .tex.")
FLAGS.add_cache_dir()
FLAGS.add("organs", cli.names, None, "Only these organs (default: all).")
FLAGS.add(
    "metrics",
    names_of(METRICS),
    USUAL_METRICS,
    f"Metrics, of {', '.join(METRICS)}.",
)
FLAGS.add("common", bool, False, "Compare the cases and organs that all have.")
FLAGS.add(
    "interval", str, "t", "Student's t, or the BCa bootstrap.", choices=("t", "bca")
)
FLAGS.add("seed", int, 0, "Of the bootstrap.")


def main(values: cli.Values) -> None:
    output = nullcontext()
    if values.output:
        output = staged_files(
            values.output, values.cache_dir, user="compare", files=("compare*",)
        )
    with output as folder:
        _compare(values, folder)


def _compare(values: cli.Values, output: Path | None) -> None:
    # Late: scipy takes a moment that --help does not need.
    from attunet_jax.evaluate.comparable import comparable
    from attunet_jax.evaluate.networks import read_networks
    from attunet_jax.evaluate.tables.compared import (
        compared,
        compared_files,
        compared_markdown,
        lacking,
    )
    from attunet_jax.files import make_folder, write_text

    organs = tuple(values.organs) if values.organs else None
    networks = read_networks(
        values.runs,
        partial(comparable, common=values.common, organs=organs),
        values.cache_dir,
    )
    rows = {network.name: network.rows for network in networks}
    if len(rows) < 2:
        raise BadArguments(f"all are named {next(iter(rows))}: compare two networks")
    for name, of_network in rows.items():
        if missing := lacking(of_network, values.metrics):
            raise BadArguments(
                f"{name}: evaluated by an older version, without {', '.join(missing)}: "
                "evaluate it again, or leave them out of --metrics"
            )
    if output:
        make_folder(output)
    filled = compared(
        rows, metrics=values.metrics, interval=values.interval, seed=values.seed
    )
    print(compared_markdown(filled))
    if output:
        files = compared_files(filled, rows)
        for name, text in files.items():
            write_text(output / name, text)
        print(f"written to {shown(output)}: {', '.join(files)}")


if __name__ == "__main__":
    cli.run(FLAGS, main)
