"""Table 3: whether test cases are new to the runs of Table 1 that it begins from."""

from collections.abc import Iterable
from pathlib import Path

from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.storage.mirror import copied
from launch.tables.rows import STAGE_SPLIT
from launch.tables.standing import stored_run


def notes_on_sources(
    sources: Iterable[Path], dataset: Dataset, cache_dir: Path | None = None
) -> list[str]:
    """Says of which sources the test cases are not new, or may not be.

    Training data in a bucket is looked for among the copies of this host.
    """
    found: dict[str, list[str]] = {}
    for source in dict.fromkeys(sources):
        if reason := _why_not_new(source, dataset, cache_dir):
            found.setdefault(reason, []).append(str(source))
    return [f"{' and '.join(names)}: {reason}" for reason, names in found.items()]


def _why_not_new(source: Path, dataset: Dataset, cache_dir: Path | None) -> str | None:
    """The reason why test cases are not new to the run `source`, if there is one."""
    run = stored_run(source)
    if run is None:
        return None  # it is missing, which is said elsewhere
    try:
        here = copied(run["config"]["data"]["directory"], cache_dir)
        theirs = open_dataset(here) if here else None
        parts = theirs.split(run["config"]["data"]["split"]) if theirs else {}
    except (BadArguments, BadData):
        theirs, parts = None, {}
    if theirs is None or theirs.manifest_sha256 != run["manifest_sha256"]:
        return (
            "its training data is not here, so nobody can tell whether these test "
            "cases are among it"
        )
    seen = theirs.image_sha256(parts["train"] + parts["validation"])
    tested = dataset.split(STAGE_SPLIT)["test"]
    known = sum(sha256 in seen for sha256 in dataset.image_sha256(tested))
    if not known:
        return None
    return (
        f"trained or validated on {known} of these {len(tested)} test cases: scores "
        "before and after fine-tuning are not those of new scans"
    )
