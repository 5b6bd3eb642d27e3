"""Evaluates the networks of a table one after another, in this process."""

from collections.abc import Sequence

from attunet_jax.data.dataset import Dataset
from attunet_jax.evaluate.cases import Scoring
from attunet_jax.evaluate.evaluation_record import write_record
from attunet_jax.evaluate.report import evaluate_into_folder
from attunet_jax.predict.predictor import load_predictor
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import with_urls
from data_prep.original import OriginalCases
from launch.cli import Values
from launch.tables.standing import Standing


def evaluate_all(
    standings: Sequence[Standing], dataset: Dataset, values: Values
) -> None:
    """Evaluates the rows that are asked for, in this process."""
    for standing in standings:
        row = standing.row
        if not row.requested or standing.record:
            continue
        print(f"\n== evaluation of {row.name}", flush=True)
        tested = dataset.split(row.split)["test"]
        original = None
        if row.scans is not None:
            original = OriginalCases(
                mirrored(row.scans, values.cache_dir), dataset, tested
            )
        predictor = load_predictor(row.trained, row.config.predict.to_dict())
        _, text = evaluate_into_folder(
            predictor,
            dataset,
            tested,
            row.evaluation,
            pictures=values.pictures,
            label_maps=values.label_maps,
            replace=True,
            scoring=Scoring(original=original),
        )
        write_record(
            row.evaluation,
            predictor,
            dataset,
            workdir=row.trained,
            split=row.split,
            part="test",
            timing=True,
        )
        print(with_urls(text), flush=True)
