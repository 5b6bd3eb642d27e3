"""Reads what a checkpoint stores of its run, whichever version wrote it.

A run of before gets today's fields with what they meant then (`RENAMED` and `ADDED` in
`config_fields`). One that this version cannot understand is refused: a field that it
does not know may decide the prediction.
"""

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from attunet_jax.config_fields import FIELDS
from attunet_jax.errors import BadData
from attunet_jax.train.config_checks import with_current_fields

# To be raised when a stored run means something else than before.
FORMAT = 1


def version() -> str:
    """Returns this package's version; a checkout that is not installed has none."""
    try:
        return metadata.version("attunet_jax")
    except metadata.PackageNotFoundError:
        return "not installed"


def stamp() -> dict[str, Any]:
    """What a run stores of the version that writes it."""
    return {"format": FORMAT, "version": version()}


def names_of(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the dotted name of each field of a config."""
    for group, value in config.items():
        if isinstance(value, Mapping):
            yield from (f"{group}.{field}" for field in value)
        else:
            yield group


def with_todays_fields(run: Mapping[str, Any], place: object) -> dict[str, Any]:
    """Returns the run that `place`, a checkpoint, stores, with today's fields.

    Raises `BadData` naming version and field where this version cannot use it.
    """
    found = run.get("format", FORMAT)
    writer = f"attunet_jax {run.get('version', 'of an unknown version')}"
    here = f"this is {version()}"
    if not isinstance(found, int) or found > FORMAT:
        raise BadData(
            f"{place}: written by {writer} in format {found}; {here}, which reads "
            f"formats up to {FORMAT}: use the version that wrote it, or a newer one"
        )
    if not isinstance(run.get("config"), Mapping):
        raise BadData(f"{place}: holds no config; use another checkpoint")
    config = with_current_fields(run["config"])
    names = set(names_of(config))
    for wrong, what in (
        (names - FIELDS.keys(), "does not know"),
        (FIELDS.keys() - names, "needs"),
    ):
        if wrong:
            has = "with" if what == "does not know" else "without"
            raise BadData(
                f"{place}: written by {writer} {has} config."
                f"{', config.'.join(sorted(wrong)[:5])}, which this version "
                f"({version()}) {what}: use the version that wrote it"
            )
    # Before networks had outputs that are not trained, and scans were blurred:
    return {"outputs": list(config["classes"]), "blur_mm": 0.0, **run, "config": config}
