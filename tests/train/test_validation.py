"""Validation Dice by hand: from counts, and from cases that do not fill the batches."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard
from attunet_jax.distributed.mesh import make_mesh
from attunet_jax.errors import BadData
from attunet_jax.train import validation
from attunet_jax.train.validation import Validation, dice_from_counts

BACKGROUND = (100, 100, 100)


def test_the_dice_of_an_organ_is_the_mean_over_cases_and_of_all_over_organs():
    counts = np.array(
        [
            [BACKGROUND, (3, 4, 8), (0, 5, 0)],
            [BACKGROUND, (4, 4, 4), (2, 2, 6)],
        ]
    )
    got = dice_from_counts(counts, ("spleen", "kidney"))
    # spleen 6/12 and 1, kidney 0 and 4/8
    assert got == {"dice": 0.5, "spleen": 0.75, "kidney": 0.25}


def test_a_case_without_the_organ_counts_only_where_it_was_predicted():
    counts = np.array(
        [
            [BACKGROUND, (0, 0, 0), (0, 0, 0)],
            [BACKGROUND, (0, 0, 7), (0, 0, 0)],
            [BACKGROUND, (5, 5, 5), (0, 0, 0)],
        ]
    )
    # kidney is nowhere: it has no Dice, and the mean is over spleen alone
    assert dice_from_counts(counts, ("spleen", "kidney")) == {
        "dice": 0.5,
        "spleen": 0.5,
    }


def test_without_anything_to_see_there_is_no_dice():
    counts = np.array([[BACKGROUND, (0, 0, 0)]])
    assert dice_from_counts(counts, ("spleen",)) == {}


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Three cases of 4x4x4; the organ is the first 8, 8 and 32 voxels."""
    records = []
    for i, voxels in enumerate((8, 8, 32)):
        label = (np.arange(64) < voxels).reshape(4, 4, 4).astype(np.uint8)
        case = Case(
            # What the stub below takes for a prediction: 8, 24 and 32 voxels.
            image_hu=(np.arange(64) < (8, 24, 32)[i]).reshape(4, 4, 4).astype(np.int16),
            label=label,
            spacing_mm=np.ones(3),
            affine=np.eye(4),
            original_shape=(4, 4, 4),
            original_affine=np.eye(4),
            case_id=f"case_{i}",
        )
        records.append(to_bytes(case))
    write_shard(tmp_path / "all.array_record", records)
    entries = [{"case_id": f"case_{i}", "shard": 0, "record": i} for i in range(3)]
    manifest = {"shards": [{"file": "all.array_record", "records": 3}]}
    return Dataset(tmp_path, manifest | {"cases": entries}, {}, "sha")


def held_out(dataset: Dataset, ids: tuple[str, ...], data: int) -> Validation:
    def eval_step(state, batch):
        prediction, truth = batch["image_hu"] > 0, batch["label"] > 0
        organ = [truth & prediction, truth, prediction]
        counted = jnp.stack([x.sum((1, 2, 3)) for x in organ], -1)
        return jnp.stack([jnp.zeros_like(counted), counted * state], 1)

    plan: Any = SimpleNamespace(
        network=SimpleNamespace(convolution="compiler"),
        validation_ids=ids,
        eval_step=eval_step,
        organs=("organ",),
        normalisation=None,
    )
    config: Any = SimpleNamespace(
        data=SimpleNamespace(batch_size=2, crop_shape=(4, 4, 4), padding="lowest")
    )
    return Validation(config, plan, dataset, make_mesh(data, 1))


@pytest.mark.parametrize("data", [1, 2])
def test_every_validation_case_counts_once_however_batches_are_filled(dataset, data):
    ids = ("case_0", "case_1", "case_2")
    # 1, 2 * 8 / (8 + 24) and 1: the third must not count twice.
    expected = (1 + 0.5 + 1) / 3
    measure = held_out(dataset, ids, data)
    for _ in range(2):  # the second time with what was compiled
        got = measure.dice(jnp.int32(1))  # pyright: ignore[reportArgumentType]
        assert got == pytest.approx({"dice": expected, "organ": expected})
    other_order = ("case_0", "case_2", "case_1")
    assert held_out(dataset, other_order, data).dice(
        jnp.int32(1)  # pyright: ignore[reportArgumentType]
    ) == pytest.approx({"dice": expected, "organ": expected})


def test_crops_are_read_once_where_they_are_small(dataset, monkeypatch):
    expected = pytest.approx({"dice": 0.75, "organ": 0.75})
    for kept in (10**9, 0):
        monkeypatch.setattr(validation, "MAX_KEPT_BYTES", kept)
        measure = held_out(dataset, ("case_0", "case_1"), 1)
        (shard,) = dataset.shard_paths
        assert measure.dice(jnp.int32(1)) == expected  # pyright: ignore
        away = shard.rename(shard.with_suffix(".away"))
        try:
            if kept:
                assert measure.dice(jnp.int32(1)) == expected  # pyright: ignore
            else:
                with pytest.raises(BadData):
                    measure.dice(jnp.int32(1))  # pyright: ignore
        finally:
            away.rename(shard)


def test_without_validation_cases_nothing_is_measured(dataset):
    assert held_out(dataset, (), 1).dice(jnp.int32(1)) == {}  # pyright: ignore
