"""A program's config: its file by path or name, its fields and their documentation."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from attunet_jax.config_fields import FIELDS, as_typed
from attunet_jax.errors import BadArguments, one_line

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def load_config(name: str) -> Any:
    """Returns the locked config of a file: a path, or a name such as `demo`."""
    places = [Path(name), ROOT / name, CONFIGS / f"{name}.py"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("[a-z]*.py")))
        raise BadArguments(f"--config={name}: no such file; there are {known}")
    try:
        config = runpy.run_path(str(path))["get_config"]()
        return config.lock()
    except SyntaxError as error:
        raise BadArguments(f"--config={name}: not Python: {one_line(error)}") from None
    except Exception as error:  # noqa: BLE001 - it is the user's own program
        reason = _wrong_type(error) or f"{type(error).__name__}: {one_line(error)}"
        raise BadArguments(f"--config={name}: {reason[:300]}") from None


def _wrong_type(error: Exception) -> str | None:
    """Says in the table's words what ml_collections says of a value of another type."""
    text = one_line(error)
    found = re.search(r"override field '(\w+)'[^.]*\. (.*) is of original type", text)
    fields = [x for x in FIELDS if found and x.rpartition(".")[2] == found[1]]
    if not isinstance(error, TypeError) or found is None or len(fields) != 1:
        return None
    return f"--config.{fields[0]}={found[2]}: {FIELDS[fields[0]].problem(None)}"


def fields_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of each field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def as_text(config: Any) -> str:
    """Returns a line for each field, as the command line takes it."""
    return "\n".join(
        f"--config.{name}={as_typed(value)}" for name, value in fields_of(config)
    )


def base_fields() -> Iterator[tuple[str, str, str]]:
    """Yields (dotted name, default, comment) of configs/base.py, which is not run."""
    text = (CONFIGS / "base.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    prefixes = {"config": ""}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        if not (
            isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
        ):
            continue
        name = prefixes[target.value.id] + target.attr
        if isinstance(node.value, ast.Name):  # config.model = model
            prefixes[node.value.id] = f"{name}."
            continue
        first = node.lineno - 1
        while lines[first - 1].strip().startswith("#"):
            first -= 1
        comment = [line.strip().lstrip("# ") for line in lines[first : node.lineno - 1]]
        yield name, as_typed(ast.literal_eval(node.value)), " ".join(comment)
