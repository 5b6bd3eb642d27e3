"""Table 3: whether test cases are new to the runs of Table 1 that it begins from."""

from collections.abc import Iterable
from pathlib import Path

from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.errors import BadArguments, BadData
from launch.tables.rows import STAGE_SPLIT
from launch.tables.standing import stored_run


def notes_on_sources(sources: Iterable[Path], dataset: Dataset) -> list[str]:
    """Says of which sources the test cases are not new, or may not be."""
    found: dict[str, list[str]] = {}
    for source in dict.fromkeys(sources):
        if reason := _why_not_new(source, dataset):
            found.setdefault(reason, []).append(str(source))
    return [f"{' and '.join(names)}: {reason}" for reason, names in found.items()]


def _why_not_new(source: Path, dataset: Dataset) -> str | None:
    """The reason why test cases are not new to the run `source`, if there is one."""
    run = stored_run(source)
    if run is None:
        return None  # it is missing, which is said elsewhere
    try:
        theirs = open_dataset(run["config"]["data"]["directory"])
        parts = theirs.split(run["config"]["data"]["split"])
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
