"""Lists the programs of this folder."""

import sys

from attunet_jax.errors import exit_status
from launch import cli

if __name__ == "__main__":
    sys.exit(exit_status(lambda: cli.print_programs("launch")))
