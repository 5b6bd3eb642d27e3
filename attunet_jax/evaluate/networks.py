"""Networks that a command line names: RUN, or NAME=FOLDER; of one name as seeds.

Whoever shows several evaluated networks takes them from here. Needs no JAX.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.evaluations import Evaluation, read_evaluations
from attunet_jax.evaluate.evaluations_in_buckets import local_evaluation
from attunet_jax.files import is_url


@dataclass(frozen=True)
class Network:
    """An evaluated network: its rows, with a `seed` where it has several folders."""

    name: str
    rows: list[dict]
    folders: list[Path]  # each holds cases.jsonl


def read_networks(
    words: Sequence[str],
    prepared: Callable[[list[Evaluation]], list[Evaluation]] = list,
    cache_dir: Path | None = None,
    *,
    pictures: bool = False,
) -> list[Network]:
    """Reads the networks that `words` name, in their order.

    Args:
      words: a run's workdir or a folder with cases.jsonl each, or NAME=FOLDER; folders
        of one name are one network trained with several seeds. Also URLs.
      prepared: applied to all evaluations before those of one name are put together.
      cache_dir: where copies of buckets lie.
      pictures: whether of URLs label maps and pictures are copied too.

    Raises:
      BadArguments: a folder's own name is one that was given to another, or one of
        several folders of a network has several seeds itself; as `read_evaluations`
        and `mirrored`.
      BadData: as these.
    """
    given = [_named(word) for word in words]
    names = [name for name, _ in given]
    folders = [
        local_evaluation(place, cache_dir, pictures=pictures) for _, place in given
    ]
    evaluations = prepared(read_evaluations(folders))
    of_name: dict[str, list[Evaluation]] = {}
    for name, evaluation in zip(names, evaluations, strict=True):
        if name is None and evaluation.name in names:
            raise BadArguments(
                f"{evaluation.folder}: is called {evaluation.name}, a name given to "
                "another: give it one too, NAME=FOLDER"
            )
        of_name.setdefault(name or evaluation.name, []).append(evaluation)
    return [_network(name, found) for name, found in of_name.items()]


def _named(word: str) -> tuple[str | None, str]:
    """Splits NAME=FOLDER; a folder that is there, or a URL, needs no name."""
    name, equals, folder = word.partition("=")
    is_folder = is_url(word) or Path(word).exists()
    return (
        (name, folder) if equals and name and folder and not is_folder else (None, word)
    )


def _network(name: str, evaluations: Sequence[Evaluation]) -> Network:
    rows = evaluations[0].rows
    if len(evaluations) > 1:
        if any("seed" in row for e in evaluations for row in e.rows):
            raise BadArguments(f"{name}: one of its folders has several seeds")
        rows = [
            row | {"seed": seed} for seed, e in enumerate(evaluations) for row in e.rows
        ]
    return Network(name, rows, [evaluation.folder for evaluation in evaluations])
