"""The report at the end of a program that evaluates, which never makes it fail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attunet_jax.errors import Interrupted, one_line
from attunet_jax.evaluate.page.write import write_report


def write_beside(
    path: Path, networks: Mapping[str, Sequence[Mapping]], **options: Any
) -> str:
    """Writes the report; returns a line that says where it is, or why there is none.

    Scores are worth more than their report: nothing of it makes an evaluation fail, and
    a report of before is not left beside scores that are not its own. Arguments are
    those of `write_report`.
    """
    try:
        path.unlink(missing_ok=True)
        write_report(path, networks, **options)
    except Interrupted:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        return f"note: {path} was not written ({reason})"
    return f"report: {path}"
