"""Which numbers normalise the scans of a run, from its training cases or its source."""

from collections.abc import Sequence

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.intensity import CT, SCAN, CtNormalisation
from attunet_jax.train.config_checks import Config
from attunet_jax.train.trained import TrainedModel


def run_normalisation(
    config: Config,
    dataset: Dataset,
    train_ids: Sequence[str],
    source: TrainedModel | None,
) -> CtNormalisation | None:
    """Returns the numbers that clip and normalise every scan of a run.

    None where each scan is normalised by its own mean and deviation. A fine-tuning
    takes what its source was trained with, whatever the config says: its weights expect
    that. Raises `BadData` where the data lack what is needed, `BadArguments` where the
    augmentation contradicts the normalisation.
    """
    if source is not None:
        normalisation = CtNormalisation.of_run(source.run)
    elif config.data.normalisation == SCAN:
        normalisation = None
    else:
        normalisation = _of_training_cases(config, dataset, train_ids)
    if normalisation is not None and config.augment.normalise_over == "window":
        remedy = f"--config.data.normalisation={SCAN}"
        if source is not None:
            remedy = "--config.augment.normalise_over=case, as its source"
        raise BadArguments(
            f"config.augment.normalise_over=window contradicts the run's normalisation "
            f"{CT!r}: {remedy}"
        )
    return normalisation


def _of_training_cases(
    config: Config, dataset: Dataset, train_ids: Sequence[str]
) -> CtNormalisation:
    labelled = dataset.labelled_hu(train_ids)
    remedy = f"train with --config.data.normalisation={SCAN}"
    if labelled is None:
        raise BadData(
            f"{dataset.place}: prepared before the HU of labelled voxels were "
            f"counted, which --config.data.normalisation={CT} needs: prepare the scans "
            f"again, or {remedy}"
        )
    if not labelled.size:
        raise BadData(
            f"{dataset.place}: nothing is labelled in the {len(train_ids)} "
            f"training cases of split {config.data.split}, so "
            f"--config.data.normalisation={CT} "
            f"has no HU to go by: check the label maps, or {remedy}"
        )
    normalisation = labelled.ct_normalisation()
    if normalisation.low_hu == normalisation.high_hu:  # every scan would be blank
        raise BadData(
            f"{dataset.place}: the labelled voxels of its training cases all have "
            f"{normalisation.low_hu} HU, so --config.data.normalisation={CT} has no "
            f"range to keep: check that the scans are in HU, or {remedy}"
        )
    return normalisation
