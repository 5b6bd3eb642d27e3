"""What the measuring programs share of a command line: a parser, lists of names."""

import argparse
from typing import NoReturn

from attunet_jax.errors import BadArguments

DTYPES = ("float32", "bfloat16")


class Parser(argparse.ArgumentParser):
    """Help as it stands in the program, whole flags only, mistakes in one line."""

    def __init__(self, module: str, documentation: str | None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise BadArguments(f"{message} (--help lists the flags)")


def names(text: str) -> tuple[str, ...]:
    """`a,b,a` to ("a", "b")."""
    return tuple(dict.fromkeys(word for word in text.split(",") if word))


def check(flag: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises `BadArguments` for a name that is not known."""
    if [name for name in given if name not in known]:
        raise BadArguments(f"{flag}={','.join(given)}: there are {', '.join(known)}")
