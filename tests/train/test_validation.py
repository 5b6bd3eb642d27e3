"""Validation Dice by hand: from counts, and from crops that do not fill the batches."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.organ_crops import OrganCrops
from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard
from attunet_jax.distributed.mesh import make_mesh
from attunet_jax.errors import BadData
from attunet_jax.train import validation
from attunet_jax.train.validation import Validation, dice_from_counts

BACKGROUND = (100, 100, 100)
WINDOW = ("case", (0, 0, 0))


def test_the_dice_of_an_organ_is_the_mean_over_its_own_crops_and_of_all_over_organs():
    counts = np.array(
        [
            [BACKGROUND, (3, 4, 8), (1, 1, 1)],  # for spleen: a kidney here is luck
            [BACKGROUND, (4, 4, 4), (2, 2, 6)],  # for both
            [BACKGROUND, (0, 9, 0), (0, 5, 0)],  # for kidney
            [BACKGROUND, (9, 9, 9), (9, 9, 9)],  # fills up the batch
        ]
    )
    crops = OrganCrops(
        windows=(WINDOW,) * 3,
        scored=((0, "spleen"), (1, "spleen"), (1, "kidney"), (2, "kidney")),
        absent={"spleen": 0, "kidney": 0, "liver": 3},
    )
    # spleen 6/12 and 1, kidney 4/8 and 0; no case has a liver
    got = dice_from_counts(counts, crops, ("spleen", "kidney", "liver"))
    assert got == {"dice": 0.5, "spleen": 0.75, "kidney": 0.25}
    assert dice_from_counts(counts, OrganCrops((), (), {}), ("spleen",)) == {}


SHAPE = (6, 6, 12)
CROP = (2, 2, 4)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Three scans, organs at opposite ends, none in the middle.

    A kidney (2) of 8 voxels in all three, and a spleen (1) in the first two. The image
    is what the stub below takes for a prediction: all of each kidney and none of the
    spleens, but half of the last.
    """
    records = []
    for i in range(3):
        label = np.zeros(SHAPE, np.uint8)
        label[4:, 4:, 10:] = 2
        if i < 2:
            label[:2, :2, :2] = 1
        predicted = np.where(label == 2, 2, 0)
        predicted[0, :2, :2] = label[0, :2, :2] * (i == 1)
        case = Case(
            image_hu=predicted.astype(np.int16),
            label=label,
            spacing_mm=np.ones(3),
            affine=np.eye(4),
            original_shape=SHAPE,
            original_affine=np.eye(4),
            case_id=f"case_{i}",
        )
        records.append(to_bytes(case))
    write_shard(tmp_path / "all.array_record", records)
    entries = [{"case_id": f"case_{i}", "shard": 0, "record": i} for i in range(3)]
    manifest = {
        "organs": {"spleen": 1, "kidney": 2, "liver": 3},
        "shards": [{"file": "all.array_record", "records": 3}],
    }
    return Dataset(tmp_path, manifest | {"cases": entries}, {}, "sha")


ALL = ("case_0", "case_1", "case_2")
# Spleen 0 and 2 * 4 / (8 + 4), kidney 1 in all three.
SPLEEN = (0 + 2 / 3) / 2
EXPECTED = {"dice": (SPLEEN + 1) / 2, "spleen": SPLEEN, "kidney": 1.0}


def held_out(
    dataset: Dataset,
    ids: tuple[str, ...] = ALL,
    data: int = 1,
    organs: tuple[str, ...] = ("spleen", "kidney"),
) -> Validation:
    def eval_step(state, batch):
        values = jnp.array([0, *(dataset.labels.values[name] for name in organs)])
        prediction = batch["image_hu"][..., None] == values
        truth = batch["label"][..., None] == values
        counted = [truth & prediction, truth, prediction]
        return jnp.stack([x.sum((1, 2, 3)) for x in counted], -1) * state

    plan: Any = SimpleNamespace(
        network=SimpleNamespace(convolution="compiler"),
        validation_ids=ids,
        eval_step=eval_step,
        organs=organs,
        normalisation=None,
    )
    config: Any = SimpleNamespace(
        data=SimpleNamespace(batch_size=2, crop_shape=CROP, padding="lowest")
    )
    return Validation(config, plan, dataset, make_mesh(data, 1))


@pytest.mark.parametrize("data", [1, 2])
def test_organs_far_from_the_middle_are_scored_in_every_case_once(dataset, data):
    measure = held_out(dataset, data=data)
    for _ in range(2):  # the second time with what was compiled
        got = measure.dice(jnp.int32(1))  # pyright: ignore[reportArgumentType]
        assert got == pytest.approx(EXPECTED)
    other_order = held_out(dataset, ALL[::-1], data)
    assert other_order.dice(jnp.int32(1)) == pytest.approx(EXPECTED)  # pyright: ignore
    # Fewer classes than the data has organs.
    alone = held_out(dataset, data=data, organs=("spleen",))
    assert alone.dice(jnp.int32(1)) == pytest.approx(  # pyright: ignore
        {"dice": SPLEEN, "spleen": SPLEEN}
    )


def test_what_is_scored_and_what_no_case_has_is_said(dataset):
    organs = ("spleen", "kidney", "liver")
    (first, second) = held_out(dataset, organs=organs).description()
    assert "5 crops" in first and "3 cases" in first
    assert "spleen is not in 1 of them" in first and "kidney" not in first
    assert second.startswith("warning: no validation case has liver: ")
    (line,) = held_out(dataset).description()
    assert "warning" not in line
    (line,) = held_out(dataset, ()).description()
    assert "no validation cases" in line
    nothing = held_out(dataset, organs=("liver",))
    assert "by nothing" in nothing.description()[1]
    assert nothing.dice(jnp.int32(1)) == {}  # pyright: ignore


def test_crops_are_read_once_where_they_are_small(dataset, monkeypatch):
    for kept in (10**9, 0):
        monkeypatch.setattr(validation, "MAX_KEPT_BYTES", kept)
        measure = held_out(dataset)
        (shard,) = dataset.shard_paths
        assert measure.dice(jnp.int32(1)) == pytest.approx(EXPECTED)  # pyright: ignore
        away = shard.rename(shard.with_suffix(".away"))
        try:
            if kept:
                assert measure.dice(jnp.int32(1)) == pytest.approx(EXPECTED)  # pyright: ignore
            else:
                with pytest.raises(BadData):
                    measure.dice(jnp.int32(1))  # pyright: ignore
        finally:
            away.rename(shard)


def test_without_validation_cases_nothing_is_measured(dataset):
    assert held_out(dataset, ()).dice(jnp.int32(1)) == {}  # pyright: ignore
