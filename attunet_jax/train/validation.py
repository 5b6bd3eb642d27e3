"""Scores the centre crops of the validation cases by their Dice."""

import jax
import numpy as np
from jax.sharding import Mesh

from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.pipeline import HostBatch, centre_crops
from attunet_jax.distributed.mesh import (
    data_shard,
    replicated,
    to_global,
)
from attunet_jax.ops import dispatch
from attunet_jax.train.config_checks import Config
from attunet_jax.train.experiment import Experiment
from attunet_jax.train.state import TrainState

# Crops of this process that are kept in memory after they were read once.
MAX_KEPT_BYTES = 10**9


class Validation:
    """Dice of the validation cases' centre crops, for a state on the mesh."""

    def __init__(
        self, config: Config, experiment: Experiment, dataset: Dataset, mesh: Mesh
    ) -> None:
        self._data, self._experiment = config.data, experiment
        self._dataset, self._mesh = dataset, mesh
        self._batches: list[HostBatch] | None = None
        self._eval_step = jax.jit(
            experiment.eval_step,
            out_shardings=replicated(mesh),
            compiler_options=dispatch.compiler_options(experiment.network.convolution),
        )

    def dice(self, state: TrainState) -> dict[str, float]:
        """`{"dice": mean over organs, organ: mean over cases}`; empty without cases."""
        case_ids = self._experiment.validation_ids
        if not case_ids:
            return {}
        with dispatch.compilation_cache(self._experiment.network.convolution):
            counts = [
                np.asarray(self._eval_step(state, to_global(rows, self._mesh)))
                for rows in self._host_batches()
            ]
        # The rows that fill up the last batch repeat the last case.
        return dice_from_counts(
            np.concatenate(counts)[: len(case_ids)], self._experiment.organs
        )

    def _host_batches(self):
        if self._batches is not None:
            yield from self._batches
            return
        kept, size = [], 0
        for rows in centre_crops(
            self._dataset,
            self._experiment.validation_ids,
            CropSpec.exact(
                self._data.crop_shape,
                self._data.padding,
                self._experiment.normalisation,
            ),
            batch_size=self._data.batch_size,
            shard=data_shard(self._mesh),
        ):
            size += sum(array.nbytes for array in rows.values())
            if size <= MAX_KEPT_BYTES:
                kept.append(rows)
            else:
                kept.clear()
            yield rows
        if size <= MAX_KEPT_BYTES:
            self._batches = kept


def dice_from_counts(counts: np.ndarray, organs: tuple[str, ...]) -> dict[str, float]:
    """Mean Dice of each organ, and their mean, from `counts [N, K, 3]`.

    The last axis is (in both, in the truth, in the prediction). A case where an organ
    is neither present nor predicted does not count for it.
    """
    dice = {}
    for k, organ in enumerate(organs, start=1):
        both, truth, prediction = counts[:, k].T.astype(float)
        defined = truth + prediction > 0
        if defined.any():
            scores = 2 * both[defined] / (truth + prediction)[defined]
            dice[organ] = float(scores.mean())
    return {"dice": float(np.mean(list(dice.values())))} | dice if dice else {}
