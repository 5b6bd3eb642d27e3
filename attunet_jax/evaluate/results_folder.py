"""Opens the folder of an evaluation's results, here or in a bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attunet_jax.storage.run_folder import sending
from attunet_jax.storage.staging import staged

# Of scores, the journal of scores that are not all there, and what shows them.
_ENDINGS = (".json", ".jsonl", ".jsonl.new", ".md", ".html", ".png")


@contextmanager
def open_results(place: Path | str, cache_dir: Path | None) -> Iterator[Path]:
    """Yields the local folder in which an evaluation is written; a path as it is.

    What a URL has of it already is there, so that it goes on; what is written is
    uploaded twice a minute and at the end.

    Raises as `staged`.
    """

    def is_result(name: str) -> bool:
        folder, _, file = name.rpartition("/")
        return folder == "label_maps" or (not folder and file.endswith(_ENDINGS))

    with staged(place, cache_dir, wanted=is_result) as stage, sending(stage):
        yield stage.folder
