"""Lists the programs of this folder."""

import sys

from launch import cli

if __name__ == "__main__":
    sys.exit(cli.print_programs("data_prep"))
