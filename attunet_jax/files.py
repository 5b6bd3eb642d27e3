"""Files that are there whole or not at all; folders seen to be writable."""

from pathlib import Path

from attunet_jax.errors import BadData


def make_folder(path: Path) -> None:
    """Makes `path` and sees that it can be written, before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Writes beside, then renames: the file is there whole or as it was."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
