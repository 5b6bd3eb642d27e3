"""Checks that prepared data can fill a table, before anything is trained."""

from collections.abc import Sequence

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.paper_tables import CROSS_VALIDATION, FOLDS
from data_prep.splits import CT82_CASES, make_splits
from launch.tables.rows import FOLD_SPLITS, Row

# Scans 25 and 70 were withdrawn from TCIA.
WITHDRAWN = 2


def check_data(dataset: Dataset, rows: Sequence[Row]) -> None:
    """Raises `BadArguments` where a requested row cannot be trained or tested."""
    for row in rows:
        count = len(dataset.case_ids)
        if row.entry.split == CROSS_VALIDATION and row.split not in dataset.splits:
            raise BadArguments(
                f"{dataset.place} has {count} cases and no split {row.split}: "
                f"Table 4 needs {FOLDS} cases or more, prepared by data_prep.prepare"
            )
        parts = dataset.split(row.split)
        for part in ("train", "test") if row.trains else ("test",):
            if not parts[part]:
                raise BadArguments(
                    f"{dataset.place}: split {row.split} has no {part} cases "
                    f"(of {count} in all): prepare more scans, or choose other --splits"
                )
        _check_organs(dataset, tuple(row.config.classes)[1:])


def _check_organs(dataset: Dataset, organs: Sequence[str]) -> None:
    known = dataset.labels.organs
    for organ in organs:
        if organ not in known:
            raise BadArguments(
                f"{dataset.place} has no organ {organ}, which the table's networks "
                f"are trained on; it has {', '.join(known)}: give Tables 1 and 2 "
                f"--config.classes=background,{','.join(known)}"
            )
        counts = [case.get("voxels", {}) for case in dataset.manifest["cases"]]
        if all(counts) and not any(count.get(organ) for count in counts):
            raise BadArguments(
                f"{dataset.place}: no case has a voxel of {organ}, so nothing can "
                "be learned or scored of it: leave it out of --config.classes, or "
                "prepare with other --labels"
            )


def check_published_folds(dataset: Dataset) -> None:
    """Raises `BadArguments` where the folds are not the published ones of CT-82."""
    remedy = "run data_prep.prepare with --folds=ct82 on Pancreas-CT"
    count = len(dataset.case_ids)
    if not CT82_CASES - WITHDRAWN <= count <= CT82_CASES:
        raise BadArguments(
            f"--folds=ct82: {dataset.place} has {count} cases, CT-82 has "
            f"{CT82_CASES} ({CT82_CASES - WITHDRAWN} today): leave --folds out, or "
            f"{remedy}"
        )
    published = make_splits(
        dataset.case_ids,
        seed=0,
        test_fraction=0.2,
        validation_fraction=0.0,
        folds="ct82",
    )
    for fold in FOLD_SPLITS:
        there = dataset.splits.get(fold, {}).get("test", ())
        if set(there) != set(published[fold]["test"]):
            raise BadArguments(
                f"--folds=ct82: {fold} of {dataset.place}/splits.json is not the "
                f"published one: {remedy}"
            )
