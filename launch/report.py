r"""Writes the report of evaluated networks: one HTML page that opens anywhere.

    python -m launch.report RUNS/80_20/unet RUNS/80_20/attention_unet
    python -m launch.report RUN FOLDER --output=page.html --groups=cases.csv --data=DIR
    python -m launch.report unet=RUN_1 unet=RUN_2 attention=RUN_3 attention=RUN_4

RUN is a trained run with an evaluation (launch.evaluate, launch.tables), FOLDER any
folder with cases.jsonl, such as the --output of launch.evaluate or launch.score.
NAME=FOLDER gives it a name; folders of one name are one network with several seeds. The
page holds scores, comparisons, learning curves, plots, the worst cases, a table of all
cases, subgroups, configs and a checklist. It is at most 5 MB and asks the network for
nothing. --groups names a CSV file: a column case_id, and any attributes of the cases.
"""

from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.files import local_path, make_folder
from launch import cli

FLAGS = cli.Flags(__doc__)
FLAGS.add_words("runs", "RUN", 1, "Evaluated runs, or folders with cases.jsonl.")
FLAGS.add("output", Path, Path("report.html"), "The page.")
FLAGS.add("groups", Path, None, "CSV file with attributes of the cases.")
FLAGS.add(
    "data", cli.readable, None, "Prepared data of the cases (default: the runs' own)."
)
FLAGS.add_cache_dir()
FLAGS.add("common", bool, False, "Show the cases and organs that all runs have.")
FLAGS.add("title", str, "", "The page's heading.")


def main(values: cli.Values) -> None:
    # Late: drawing takes a second to load.
    from attunet_jax.data.dataset import open_dataset
    from attunet_jax.evaluate.comparable import comparable
    from attunet_jax.evaluate.networks import read_networks
    from attunet_jax.evaluate.page.groups import read_groups
    from attunet_jax.evaluate.page.write import write_report

    output = local_path(values.output)
    if output.is_dir():
        output = output / "report.html"
    networks = read_networks(
        values.runs,
        lambda found: (
            comparable(found, common=values.common) if len(found) > 1 else found
        ),
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
        groups = read_groups(values.groups, list(dict.fromkeys(cases)))
    make_folder(output.parent)
    write_report(
        output,
        {network.name: network.rows for network in networks},
        folders={network.name: network.folders for network in networks},
        data=dataset and dataset.directory,
        groups=groups,
        title=values.title,
    )
    megabytes = output.stat().st_size / 1e6
    print(f"written to {output} ({megabytes:.1f} MB)")


if __name__ == "__main__":
    cli.run(FLAGS, main)
