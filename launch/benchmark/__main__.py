"""Measures how fast this machine does everything, beside other libraries if asked.

    python -m launch.benchmark speed --size=small --against=torch
    python -m launch.benchmark memory --help

What can be measured:

    speed        forward pass, train step, prediction and everything around them
    memory       memory of a train step
    input        cases a second of the input pipeline
    preparation  scans a minute of data_prep.prepare, and its memory
"""

import importlib
import sys

from attunet_jax.errors import BadArguments, exit_status

SUBCOMMANDS = ("speed", "memory", "input", "preparation")


def main(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    if name in ("--help", "-h", "-help"):
        print((__doc__ or "").strip())
        return 0
    if name not in SUBCOMMANDS:
        raise BadArguments(
            f"the first argument is one of {', '.join(SUBCOMMANDS)}, not {name!r}"
        )
    return importlib.import_module(f"launch.benchmark.{name}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
