"""A state and the validation cases in, the Dice of their centre crops out."""

from typing import Any

import jax
import numpy as np

from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.pipeline import centre_crops
from attunet_jax.distributed.mesh import (
    batch_shardings,
    data_shard,
    replicated,
    to_global,
)
from attunet_jax.train.experiment import Plan
from attunet_jax.train.state import TrainState


class HeldOut:
    """Dice of the validation cases' centre crops, for a state on the mesh."""

    def __init__(self, config: Any, plan: Plan, dataset: Dataset, mesh: Any) -> None:
        self._config, self._plan, self._dataset = config, plan, dataset
        self._mesh = mesh
        self._count: Any = None

    def dice(self, state: TrainState) -> dict[str, float]:
        """`{"dice": mean over organs, organ: mean over cases}`; empty without cases."""
        plan, data = self._plan, self._config.data
        if not plan.validation_ids:
            return {}
        counts = []
        for rows in centre_crops(
            self._dataset,
            plan.validation_ids,
            CropSpec.exact(data.crop_shape, data.padding),
            batch_size=data.batch_size,
            shard=data_shard(self._mesh),
        ):
            batch = to_global(rows, self._mesh)
            if self._count is None:
                self._count = jax.jit(
                    plan.count_step,
                    in_shardings=(
                        replicated(self._mesh),
                        batch_shardings(self._mesh, batch),
                    ),
                    out_shardings=replicated(self._mesh),
                )
            counts.append(np.asarray(self._count(state, batch)))
        # The last batch is filled up with rows that repeat the last case.
        each = np.concatenate(counts)[: len(plan.validation_ids)]
        return dice_from_counts(each, plan.organs)


def dice_from_counts(counts: np.ndarray, organs: tuple[str, ...]) -> dict[str, float]:
    """`counts [N, K, 3]` (both, truth, prediction) to a mean Dice for each organ.

    A case where an organ is neither there nor predicted says nothing of it.
    """
    dice = {}
    for k, organ in enumerate(organs, start=1):
        both, truth, prediction = counts[:, k].T.astype(float)
        defined = truth + prediction > 0
        if defined.any():
            scores = 2 * both[defined] / (truth + prediction)[defined]
            dice[organ] = float(scores.mean())
    return {"dice": float(np.mean(list(dice.values())))} | dice if dice else {}
