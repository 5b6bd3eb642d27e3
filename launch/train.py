"""Trains a network on a prepared data set, or goes on where the same command stopped.

    python -m launch.train --config=configs/attention_unet.py --data=DIR --workdir=RUN
    python -m launch.train --data=DIR --workdir=RUN2 --config.data.batch_size=4
    python -m launch.train --data=DIR --dry_run --config.mesh.spatial=2
    launch/cluster/local.sh 2 -- --data=DIR --workdir=RUN3   (docs/clusters.md)

RUN then holds checkpoints/, config.json, environment.json, metrics.jsonl and
tensorboard/; with several processes logs/ too. Exit status: 0 done, 2 bad arguments,
3 bad data, 75 stopped by a signal with everything saved, 134 another process died.
"""

from pathlib import Path
from typing import Any

from absl import flags

from attunet_jax.distributed import processes
from launch import cli
from launch.large_pages import use_large_pages

cli.define_config("attention_unet")
flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there.")
flags.DEFINE_string("data", None, "Prepared data set; sets config.data.directory.")
flags.DEFINE_bool("dry_run", False, "Say what the run would take; write nothing.")
flags.DEFINE_string(
    "profile_steps", None, "FIRST:LAST step to record into RUN/profile."
)
cli.define_process_flags()


def main(values: Any) -> None:
    config = values.config
    if values.data:
        config.data.directory = values.data
    if not config.data.directory:
        cli.required("data")
    use_large_pages()
    if values.dry_run:
        processes.run_together(lambda: _say_what_it_takes(config), values)
        return
    workdir = Path(cli.required("workdir"))

    def work() -> None:
        from attunet_jax.train.loop import train  # late: --help needs no jax
        from attunet_jax.train.monitor import parse_steps

        train(config, workdir, profile_steps=parse_steps(values.profile_steps))

    processes.run_together(work, values)


def _say_what_it_takes(config: Any) -> None:
    import jax

    from attunet_jax.train.aot import dry_run
    from attunet_jax.train.setup import prepare

    text = dry_run(prepare(config))
    if jax.process_index() == 0:
        print(text)


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
