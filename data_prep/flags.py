"""A command line in, its flags or one line on what is wrong with it out."""

import argparse
from typing import NoReturn

from attunet_jax.errors import BadArguments


class Parser(argparse.ArgumentParser):
    """Flags by their whole names only: an abbreviation changes its meaning when a flag
    is added. Mistakes are `BadArguments`."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise BadArguments(f"{message} (--help lists the flags)")
