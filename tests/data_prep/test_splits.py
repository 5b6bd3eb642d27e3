"""Case ids in, who trains and who tests out: counts by hand, parts that never meet."""

import json
from itertools import combinations

import pytest

from data_prep.splits import make_splits

PARTS = ("train", "validation", "test")


def split(count, seed=0, test=0.2, validation=0.1):
    ids = [f"case_{i:03}" for i in range(count)]
    return ids, make_splits(
        ids, seed=seed, test_fraction=test, validation_fraction=validation
    )


def test_150_cases_give_pools_of_120_and_30_and_the_other_way_round():
    # The paper's two rows of Table 1: train on 120 and test on 30, then 30 and 120.
    _, splits = split(150)
    assert list(splits) == ["80_20", "20_80"]
    counts = {
        name: [len(parts[part]) for part in PARTS] for name, parts in splits.items()
    }
    assert counts == {"80_20": [108, 12, 30], "20_80": [27, 3, 120]}


def test_validation_cases_come_out_of_the_training_pool():
    ids, with_validation = split(150)
    _, without = split(150, validation=0.0)
    for name, parts in with_validation.items():
        assert without[name]["validation"] == []
        assert parts["test"] == without[name]["test"]
        pool = sorted(parts["train"] + parts["validation"])
        assert pool == without[name]["train"]
        assert sorted(pool + parts["test"]) == ids


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 43, 90, 150])
@pytest.mark.parametrize("test", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("validation", [0.0, 0.1, 0.9])
def test_every_case_is_in_exactly_one_part(count, test, validation):
    ids, splits = split(count, test=test, validation=validation)
    for parts in splits.values():
        assert set(parts) == set(PARTS)
        for a, b in combinations(PARTS, 2):
            assert not set(parts[a]) & set(parts[b])
        assert sorted(sum(parts.values(), [])) == ids


def test_what_one_split_trains_on_the_other_tests_on():
    _, splits = split(43, validation=0.0)
    assert splits["80_20"]["train"] == splits["20_80"]["test"]
    assert splits["80_20"]["test"] == splits["20_80"]["train"]


def test_a_pool_of_four_has_a_validation_case_and_one_of_three_has_none():
    _, splits = split(7, test=0.5)  # a test half of 4 (3.5, rounded to even)
    assert [len(splits["50_50"][part]) for part in PARTS] == [3, 1, 3]
    _, splits = split(5, test=0.4)
    assert [len(splits["60_40"][part]) for part in PARTS] == [3, 0, 2]


def test_the_same_seed_gives_the_same_splits_in_whatever_order_the_ids_come():
    ids, first = split(150, seed=3)
    turned = make_splits(ids[::-1], seed=3, test_fraction=0.2, validation_fraction=0.1)
    assert first == turned == split(150, seed=3)[1]


def test_another_seed_gives_other_splits():
    tests = [tuple(split(150, seed=seed)[1]["80_20"]["test"]) for seed in range(5)]
    assert len(set(tests)) == 5


def test_the_test_part_is_drawn_from_all_of_the_folder():
    # Scans of one clinic tend to have neighbouring names: thirty drawn out of 150 at
    # random lie in both halves of the list (all in one: about 1 in 10^10).
    ids, splits = split(150)
    places = [ids.index(case_id) for case_id in splits["80_20"]["test"]]
    assert min(places) < 50 and max(places) >= 100


def test_splits_are_plain_json():
    _, splits = split(10)
    assert json.loads(json.dumps(splits)) == splits
