"""Rows of networks that were not trained here: somebody else's label maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.label_maps.prepared import (
    MissingCases,
    score_against_dataset,
)
from attunet_jax.evaluate.paper_tables import TABLES
from attunet_jax.evaluate.tables import Result
from attunet_jax.files import make_folder
from attunet_jax.storage.mirror import mirrored
from launch.tables.rows import STAGES, Row

FOLDER = "added"


@dataclass(frozen=True)
class Added:
    """Somebody else's label maps of the test cases of a split."""

    name: str
    split: str  # as an entry of the table has it
    place: Path | str  # of the label maps
    cases: Path  # cases.jsonl
    rows: Sequence[Mapping]

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.split

    @property
    def result(self) -> Result:
        return Result(
            rows=self.rows,
            parameters=None,
            inference_s=None,
            train_cases=None,
            note=f"label maps of {self.place}, scored as ours are",
        )


def score_added(
    given: Iterable[tuple[str, Path | str]],
    number: int,
    rows: Iterable[Row],
    dataset: Dataset,
    config: Any,
    workdir: Path,
    cache_dir: Path | None = None,
) -> list[Added]:
    """Scores label maps on the test cases of each split of which they are whole.

    In Table 3 they stand with the networks trained from scratch. Scores are kept in
    `workdir/added`. Raises `BadData` where a folder is whole for no split.
    """
    window = None
    if config.predict.region == "centre_crop":
        window = CropSpec.exact(config.data.crop_shape, config.data.padding)
    tests: dict[str, dict[str, None]] = {}
    for row in rows:
        split = STAGES[-1] if row.entry.split in STAGES else row.entry.split
        test = dataset.split(row.split)["test"]
        tests.setdefault(split, {}).update(dict.fromkeys(test))
    reserved = {entry.network for entry in TABLES[number].entries}
    found = []
    for name, place in given:
        if name in reserved:
            raise BadArguments(f"--add={name}:{place}: is one of our networks' names")
        folder = mirrored(place, cache_dir)
        whole, missing = [], []
        for split, case_ids in tests.items():
            path = workdir / FOLDER / name / split / "cases.jsonl"
            try:
                scored = score_against_dataset(
                    folder, dataset, case_ids, window=window, path=path
                )
            except MissingCases as error:
                missing.append((split, error))
                continue
            whole.append(Added(name, split, place, path, scored))
        if not whole and missing:
            raise BadData(f"--add={name}:{place}: {missing[0][1]}")
        for split, error in missing:
            print(f"note: {name} is not in split {split}: {error}", flush=True)
        found += whole
    if found:
        make_folder(workdir)
    return found
