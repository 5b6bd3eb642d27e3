"""Measures how fast this machine does everything, beside other libraries if asked.

    python -m launch.benchmark speed --size=small --against=torch
    python -m launch.benchmark memory --help

The first argument is one of

    speed        forward pass, train step, prediction and everything around them
    memory       memory of a train step
    input        cases per second of the input pipeline
    preparation  scans per minute of data_prep.prepare, and its memory
    metrics      seconds to score label maps, and agreement with other libraries
    cpu_forms    what each form of attunet_jax/ops/cpu gains
"""

import importlib
import sys

from attunet_jax import interrupts
from attunet_jax.errors import BadArguments, exit_status
from launch import cli

SUBCOMMANDS = ("speed", "memory", "input", "preparation", "metrics", "cpu_forms")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("--help", "-h", "-help"):
        print((__doc__ or "").strip())
        return
    if name not in SUBCOMMANDS:
        raise BadArguments(
            f"{name or 'no argument'}: the first argument is one of "
            f"{', '.join(SUBCOMMANDS)}"
        )
    del sys.argv[1]
    module = importlib.import_module(f"launch.benchmark.{name}")
    interrupts.listen("nothing was written")
    cli.run(module.FLAGS, module.main)


if __name__ == "__main__":
    interrupts.leave(exit_status(main))
