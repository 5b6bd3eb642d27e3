"""Trains a network on a prepared data set, or goes on where the same command stopped.

    python -m launch.train --config=configs/attention_unet.py --data=DIR --workdir=RUN
    python -m launch.train --data=DIR --workdir=RUN2 --config.data.batch_size=4

RUN then holds checkpoints/, config.json, environment.json, metrics.jsonl and
tensorboard/. Exit status: 0 done, 2 bad arguments, 3 bad data, 75 stopped by a signal
with everything saved.
"""

from pathlib import Path
from typing import Any

from absl import flags

from launch import program

program.define_config("attention_unet")
flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there.")
flags.DEFINE_string("data", None, "Prepared data set; sets config.data.directory.")


def main(values: Any) -> None:
    from attunet_jax.train.loop import train  # late: --help needs no jax

    config = values.config
    if values.data:
        config.data.directory = values.data
    if not config.data.directory:
        program.required("data")
    train(config, Path(program.required("workdir")))


if __name__ == "__main__":
    program.run(main, __doc__ or "")
