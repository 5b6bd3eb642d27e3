"""Scores the validation cases: the Dice of each organ in a crop centred on it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from attunet_jax.data.batch import HostBatch
from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.organ_crops import OrganCrops, find_organ_crops, organ_batches
from attunet_jax.distributed.consensus import raise_on_all
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
    """Dice of the validation cases' organs, for a state on the mesh.

    All processes find the same crops, each by itself, and cut those of its rows. Raises
    `BadData`, the same in all, where a record is damaged.
    """

    def __init__(
        self, config: Config, experiment: Experiment, dataset: Dataset, mesh: Mesh
    ) -> None:
        self._data, self._experiment = config.data, experiment
        self._dataset, self._mesh = dataset, mesh
        self._spec = CropSpec.exact(
            self._data.crop_shape, self._data.padding, experiment.normalisation
        )
        self._crops = raise_on_all(
            lambda: find_organ_crops(
                dataset, experiment.validation_ids, experiment.organs, self._spec
            )
        )
        self._batches: list[HostBatch] | None = None
        self._eval_step = jax.jit(
            experiment.eval_step,
            out_shardings=replicated(mesh),
            compiler_options=dispatch.compiler_options(experiment.network.convolution),
        )

    def description(self) -> list[str]:
        """Lines that say what is scored, and which organs no validation case has."""
        return described(self._crops, len(self._experiment.validation_ids))

    def dice(self, state: TrainState) -> dict[str, float]:
        """`{"dice": mean over organs, organ: mean over cases}`; empty without crops."""
        if not self._crops.windows:
            return {}
        with dispatch.compilation_cache(self._experiment.network.convolution):
            counts = [
                np.asarray(self._eval_step(state, to_global(rows, self._mesh)))
                for rows in self._host_batches()
            ]
        return dice_from_counts(
            np.concatenate(counts), self._crops, self._experiment.organs
        )

    def _host_batches(self):
        if self._batches is not None:
            yield from self._batches
            return
        kept, size = [], 0
        for rows in organ_batches(
            self._dataset,
            self._crops,
            self._spec,
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


def dice_from_counts(
    counts: np.ndarray, crops: OrganCrops, organs: Sequence[str]
) -> dict[str, float]:
    """Mean Dice of each organ, and their mean, from `counts [N, K, 3]` of windows.

    The last axis is (in both, in the truth, in the prediction); background is the first
    class. An organ is scored in the windows that are for it alone; one that no case has
    is left out.
    """
    scores: dict[str, list[float]] = {organ: [] for organ in organs}
    place = {organ: k for k, organ in enumerate(organs, start=1)}
    for window, organ in crops.scored:
        both, truth, prediction = counts[window, place[organ]].tolist()
        scores[organ].append(2 * both / max(truth + prediction, 1))
    dice = {organ: float(np.mean(each)) for organ, each in scores.items() if each}
    return {"dice": float(np.mean(list(dice.values())))} | dice if dice else {}


def described(crops: OrganCrops, cases: int) -> list[str]:
    """Lines that say what is scored, and a warning for organs that no case has."""
    if not cases:
        return ["no validation cases: the best checkpoint is the latest"]
    nowhere = [organ for organ, count in crops.absent.items() if count == cases]
    partly = [
        f"{organ} is not in {count} of them"
        for organ, count in crops.absent.items()
        if 0 < count < cases
    ]
    lines = [
        f"validation: {len(crops.windows)} crops centred on the organs of {cases} "
        + ("case" if cases == 1 else "cases")
        + "".join(f"; {words}" for words in partly)
    ]
    if nowhere:
        lines.append(nowhere_warning(nowhere, bool(crops.windows)))
    return lines


def nowhere_warning(organs: Sequence[str], others: bool) -> str:
    """Warns of organs that no validation case has; `others` says if any has another."""
    by_what = "by the other organs" if others else "by nothing, it is the latest"
    return (
        f"warning: no validation case has {', '.join(organs)}: the best checkpoint is "
        f"chosen {by_what}; another --config.data.split may have them"
    )
