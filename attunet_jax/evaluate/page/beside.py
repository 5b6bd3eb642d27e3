"""The report at the end of a program that evaluates; without it the scores stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadData, Interrupted, one_line
from attunet_jax.evaluate.page.write import write_report


class NoReport(BadData):
    """The report was asked for and is not there; all else is."""


def write_beside(
    path: Path, networks: Mapping[str, Sequence[Mapping]], **options: Any
) -> str:
    """Writes the report; returns a line that says where it is.

    A report of before is not left beside scores that are not its own. Arguments are
    those of `write_report`. Raises `NoReport` where anything keeps it from being
    written: callers finish what is worth more before they raise it.
    """
    try:
        path.unlink(missing_ok=True)
        write_report(path, networks, **options)
    except Interrupted:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        if not isinstance(error, OSError | BadData):
            reason = f"{type(error).__name__}: {reason}"
        raise NoReport(
            f"{path}: the report was not written ({reason}); the scores are: make it "
            "with python -m launch.report"
        ) from error
    return f"report: {path}"
