r"""Writes the report of evaluated networks: one HTML page that opens anywhere.

    python -m launch.report RUNS/80_20/unet RUNS/80_20/attention_unet
    python -m launch.report RUN FOLDER --output=page.html --groups=cases.csv --data=DIR
    python -m launch.report unet=RUN_1 unet=RUN_2 attention=RUN_3 attention=RUN_4
    python -m launch.report gs://B/runs/unet s3://B/scores --output=gs://B/page.html

RUN is a trained run with an evaluation (launch.evaluate, launch.tables), FOLDER any
folder with cases.jsonl, such as the --output of launch.evaluate or launch.score.
NAME=FOLDER gives it a name; folders of one name are one network with several seeds. The
page holds scores, comparisons, learning curves, plots, the worst cases, a table of all
cases, subgroups, configs and a checklist. It is at most 5 MB and asks the network for
nothing. --groups names a CSV file: a column case_id, and any attributes of the cases.

Each place may be in a bucket, gs:// or s3://. Of a run there scores, label maps and
pictures are copied to this machine, and no checkpoint. A --output in a bucket that does
not end in .html is a folder, for report.html.
"""

from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.files import is_url, make_folder
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown
from attunet_jax.storage.outputs import staged_file
from attunet_jax.storage.urls import within
from launch import cli

REPORT = "report.html"
FLAGS = cli.Flags(__doc__)
FLAGS.add_words("runs", "RUN", 1, "Evaluated runs, or folders with cases.jsonl.")
FLAGS.add("output", cli.writable, Path("report.html"), "The page, or its folder.")
FLAGS.add("groups", cli.readable, None, "CSV file with attributes of the cases.")
FLAGS.add(
    "data", cli.readable, None, "Prepared data of the cases (default: the runs' own)."
)
FLAGS.add_cache_dir()
FLAGS.add("common", bool, False, "Show the cases and organs that all runs have.")
FLAGS.add("title", str, "", "The page's heading.")


def main(values: cli.Values) -> None:
    with staged_file(_page(values.output), values.cache_dir, user="report") as page:
        _write(values, page)
        megabytes = page.stat().st_size / 1e6
        print(f"written to {shown(page)} ({megabytes:.1f} MB)")


def _page(output: Path | str) -> Path | str:
    """The page that --output names itself or, as a folder, is for."""
    if not is_url(output):
        return Path(output) / REPORT if Path(output).is_dir() else output
    is_page = "/" in within(str(output)) and str(output).endswith((".html", ".htm"))
    return output if is_page else f"{output}/{REPORT}"


def _write(values: cli.Values, page: Path) -> None:
    # Late: drawing takes a second to load.
    from attunet_jax.data.dataset import open_dataset
    from attunet_jax.evaluate.comparable import comparable
    from attunet_jax.evaluate.networks import read_networks
    from attunet_jax.evaluate.page.groups import read_groups
    from attunet_jax.evaluate.page.write import write_report

    networks = read_networks(
        values.runs,
        lambda found: (
            comparable(found, common=values.common) if len(found) > 1 else found
        ),
        values.cache_dir,
        pictures=True,
    )
    dataset = None
    if values.data is not None:
        dataset = open_dataset(values.data, values.cache_dir)
        known = {None, dataset.manifest_sha256}
        for network in networks:
            if not {row.get("manifest_sha256") for row in network.rows} <= known:
                raise BadArguments(
                    f"--data={values.data}: {network.folders[0]} was evaluated on "
                    "other prepared data"
                )
    cases = [str(row["case_id"]) for one in networks for row in one.rows]
    groups = None
    if values.groups is not None:
        file = mirrored(values.groups, values.cache_dir)
        groups = read_groups(file, list(dict.fromkeys(cases)))
    make_folder(page.parent)
    write_report(
        page,
        {network.name: network.rows for network in networks},
        folders={network.name: network.folders for network in networks},
        data=dataset and dataset.directory,
        groups=groups,
        title=values.title,
    )


if __name__ == "__main__":
    cli.run(FLAGS, main)
