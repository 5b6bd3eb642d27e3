"""Validation crops: where they lie, by hand and by brute force, and who reads which."""

import numpy as np
import pytest

from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import open_dataset
from attunet_jax.data.organ_crops import (
    OrganCrops,
    find_organ_crops,
    organ_batches,
    organ_centre,
)
from attunet_jax.errors import BadArguments, BadData

SPEC = CropSpec.exact((4, 6, 8), "lowest")
ORGANS = ("spleen", "pancreas", "kidney")


@pytest.fixture
def dataset(prepared):
    return open_dataset(prepared)


def batches(dataset, crops, spec=SPEC, *, batch_size=4, shard=(0, 1)):
    return list(organ_batches(dataset, crops, spec, batch_size=batch_size, shard=shard))


def test_the_centre_is_the_organs_voxel_nearest_to_its_centre_of_mass():
    rng = np.random.default_rng(5)
    label = rng.integers(0, 4, (7, 8, 9)).astype(np.uint8)
    label[:2] = 0
    for value in (1, 2, 3):
        voxels = np.argwhere(label == value)
        apart = [sum((v - voxels.mean(0)) ** 2) for v in voxels]
        found = organ_centre(label, value)
        assert found is not None and label[found] == value
        nearest = sum((np.array(found) - voxels.mean(0)) ** 2)
        assert nearest == pytest.approx(min(apart), rel=1e-12)
    # Two parts with nothing between them: a voxel of one, not the middle.
    label[:] = 0
    label[3, 2, 1:3] = label[3, 2, 7:9] = 9
    assert organ_centre(label, 9) == (3, 2, 2)
    assert organ_centre(label, 1) is None


def test_each_organ_of_each_case_lies_in_the_middle_of_a_crop(make_case, write_dataset):
    label = np.zeros((20, 30, 40), np.uint8)
    label[0:3, 0:3, 4:7] = 1  # at an edge: the crop begins with the scan
    label[10:13, 14:17, 20:23] = 3  # centre 11, 15, 21
    cases = [
        make_case("case_0", label.shape, label=label),
        make_case("case_1", label.shape, label=np.where(label == 3, 3, 0).astype("u1")),
    ]
    dataset = write_dataset(cases)
    crops = find_organ_crops(dataset, ("case_0", "case_1"), ORGANS, SPEC)
    assert crops == OrganCrops(
        windows=(
            ("case_0", (0, 0, 1)),
            ("case_0", (9, 12, 17)),
            ("case_1", (9, 12, 17)),
        ),
        scored=((0, "spleen"), (1, "kidney"), (2, "kidney")),
        absent={"spleen": 1, "pancreas": 2, "kidney": 0},
    )
    (first, second) = batches(dataset, crops, batch_size=2)
    np.testing.assert_array_equal(first["label"][1], label[9:13, 12:18, 17:25])
    np.testing.assert_array_equal(
        first["image_hu"][0], cases[0].image_hu[0:4, 0:6, 1:9]
    )
    # The last window fills up the batch.
    assert second["case_index"].tolist() == [1, 1]
    # A crop that holds the whole scan is for all of its organs.
    whole = CropSpec.exact((20, 32, 40), "lowest")
    crops = find_organ_crops(dataset, ("case_0",), ORGANS, whole)
    assert crops.windows == (("case_0", (0, 0, 0)),)
    assert crops.scored == ((0, "spleen"), (0, "kidney"))


def test_only_the_organs_that_are_asked_for_get_crops(dataset):
    crops = find_organ_crops(dataset, dataset.case_ids, ("kidney",), SPEC)
    assert {organ for _, organ in crops.scored} == {"kidney"}
    assert crops.absent == {"kidney": 0} and len(crops.windows) == 7


def test_crops_of_all_hosts_are_those_of_one(dataset):
    crops = find_organ_crops(dataset, dataset.case_ids, ORGANS, SPEC)
    assert crops == find_organ_crops(dataset, dataset.case_ids, ORGANS, SPEC)
    alone = batches(dataset, crops)
    for count in (2, 4):
        shards = [batches(dataset, crops, shard=(i, count)) for i in range(count)]
        for whole, *parts in zip(alone, *shards, strict=True):
            for name, rows in whole.items():
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(joined, rows, err_msg=name)


def test_no_cases_make_no_crops(dataset):
    crops = find_organ_crops(dataset, (), ORGANS, SPEC)
    assert crops.windows == () and batches(dataset, crops) == []


def test_what_cannot_be_shared_out_or_is_damaged_is_named(prepared, dataset, damage):
    crops = find_organ_crops(dataset, ("case_4",), ORGANS, SPEC)
    with pytest.raises(BadArguments, match="batch_size=3: cannot be split over 2"):
        batches(dataset, crops, batch_size=3, shard=(0, 2))
    path = prepared / "cases-00001-of-00003.array_record"
    damage(path, 1)
    for read in (
        lambda: batches(dataset, crops),
        lambda: find_organ_crops(dataset, ("case_4",), ORGANS, SPEC),
    ):
        with pytest.raises(BadData, match="damaged") as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
