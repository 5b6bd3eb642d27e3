"""Case ids in, who trains and who tests out: counts by hand, parts that never meet."""

import json
from itertools import combinations

import numpy as np
import pytest

from attunet_jax.errors import BadArguments
from data_prep.splits import make_splits

PARTS = ("train", "validation", "test")


def split(count, seed=0, test=0.2, validation=0.1):
    ids = [f"case_{i:03}" for i in range(count)]
    return ids, make_splits(
        ids,
        seed=seed,
        test_fraction=test,
        validation_fraction=validation,
        folds="random",
    )


def test_150_cases_give_pools_of_120_and_30_and_the_other_way_round():
    # The paper's two rows of Table 1: train on 120 and test on 30, then 30 and 120.
    _, splits = split(150)
    counts = {
        name: [len(parts[part]) for part in PARTS] for name, parts in splits.items()
    }
    assert counts == {
        "80_20": [108, 12, 30],
        "20_80": [27, 3, 120],
        "75_25": [101, 11, 38],
    } | {f"fold_{k}": [108, 12, 30] for k in range(1, 6)}


def test_82_cases_give_the_papers_61_and_21():
    _, splits = split(82, validation=0.0)
    assert [len(splits["75_25"][part]) for part in PARTS] == [61, 0, 21]


def test_every_case_is_tested_in_exactly_one_fold():
    ids, splits = split(43)
    tested = [case for k in range(1, 6) for case in splits[f"fold_{k}"]["test"]]
    assert sorted(tested) == ids
    sizes = [len(splits[f"fold_{k}"]["test"]) for k in range(1, 6)]
    assert sizes == [9, 9, 9, 8, 8]
    assert not any(name.startswith("fold") for name in split(4)[1])


# Recovered from the published script by running it: scikit-learn's KFold with
# random_state=0 over the sorted 82 cases, 1-based.
CT82 = {
    1: [3, 9, 14, 23, 28, 31, 34, 41, 43, 44, 54, 57, 63, 73, 76, 78, 80],
    2: [4, 5, 7, 8, 18, 27, 39, 42, 46, 49, 53, 55, 60, 61, 67, 75, 82],
    3: [2, 11, 12, 15, 24, 29, 32, 33, 35, 51, 56, 58, 69, 70, 72, 74],
    4: [1, 6, 16, 17, 19, 20, 21, 25, 30, 36, 50, 52, 62, 64, 77, 81],
    5: [10, 13, 22, 26, 37, 38, 40, 45, 47, 48, 59, 65, 66, 68, 71, 79],
}


def ct82(ids):
    return make_splits(
        ids, seed=0, test_fraction=0.2, validation_fraction=0.1, folds="ct82"
    )


def test_the_folds_of_ct_82_are_the_published_ones():
    for missing in [(), (25, 70)]:
        present = [n for n in range(1, 83) if n not in missing]
        splits = ct82([f"PANCREAS_{n:04}" for n in reversed(present)])
        for k, numbers in CT82.items():
            expected = [f"PANCREAS_{n:04}" for n in numbers if n not in missing]
            assert splits[f"fold_{k}"]["test"] == expected


def test_cases_that_are_not_of_ct_82_are_refused():
    for ids, said in [
        (["PANCREAS_0001", "PANCREAS_0083"], "PANCREAS_0083"),
        (["anna", "PANCREAS_0001"], "anna"),
        (["a_01", "b_01"], "the same number"),
    ]:
        with pytest.raises(BadArguments, match=said):
            ct82(ids)


def test_validation_cases_come_out_of_the_training_pool():
    ids, with_validation = split(150)
    _, without = split(150, validation=0.0)
    for name, parts in with_validation.items():
        assert without[name]["validation"] == []
        assert parts["test"] == without[name]["test"]
        pool = sorted(parts["train"] + parts["validation"])
        assert pool == without[name]["train"]
        assert sorted(pool + parts["test"]) == ids


def test_every_case_is_in_exactly_one_part():
    for count in [1, 2, 3, 4, 5, 10, 43, 90, 150]:
        for test in [0.0, 0.2, 0.5, 0.9]:
            for validation in [0.0, 0.1, 0.9]:
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
    turned = make_splits(
        ids[::-1],
        seed=3,
        test_fraction=0.2,
        validation_fraction=0.1,
        folds="random",
    )
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


def test_single_cases_are_split_as_they_always_were():
    # What numpy's generator gives, written out: the first of a permutation.
    ids = [f"case_{i:03}" for i in range(23)]
    order = np.random.default_rng(0).permutation(ids).tolist()
    again = np.random.default_rng([0, 5]).permutation(order)
    _, splits = split(23)
    assert splits["80_20"]["test"] == sorted(order[:5])
    assert splits["80_20"]["validation"] == sorted(order[5:7])
    assert splits["75_25"]["test"] == sorted(order[:6])
    for k, part in enumerate(np.array_split(again, 5), start=1):
        assert splits[f"fold_{k}"]["test"] == sorted(part.tolist())
    alone = make_splits(
        ids,
        **{"seed": 0, "test_fraction": 0.2, "validation_fraction": 0.1},
        folds="random",
        units=[(i,) for i in ids],
    )
    assert alone == splits


def test_cases_of_one_patient_are_in_one_part_of_every_split():
    rng = np.random.default_rng(1)
    for trial in range(60):
        sizes = rng.integers(1, rng.integers(2, 12), rng.integers(1, 15))
        units = [
            tuple(f"p{p:02}_{n:02}" for n in range(size))
            for p, size in enumerate(sizes)
        ]
        ids = sorted(sum(units, ()))
        splits = make_splits(
            ids,
            **{"seed": trial, "test_fraction": 0.2, "validation_fraction": 0.1},
            folds="random",
            units=units,
        )
        for name, parts in splits.items():
            assert sorted(sum(parts.values(), [])) == ids
            part_of = {c: part for part in PARTS for c in parts[part]}
            for unit in units:
                assert len({part_of[c] for c in unit}) == 1, (name, unit)
            if len(units) > 1:
                assert parts["test"] and parts["train"], (name, parts)
        assert ("fold_1" in splits) == (len(units) >= 5)
        if "fold_1" in splits:
            tested = [c for k in range(1, 6) for c in splits[f"fold_{k}"]["test"]]
            assert sorted(tested) == ids


def test_of_patients_with_several_cases_a_split_tests_on_about_its_share():
    units = [tuple(f"p{p:02}_{n}" for n in range(3)) for p in range(40)]
    splits = make_splits(
        sorted(sum(units, ())),
        **{"seed": 0, "test_fraction": 0.2, "validation_fraction": 0.1},
        folds="random",
        units=units,
    )
    # Of 120 cases 24, 30 and 24: multiples of 3; of the other 96 about 10 validate.
    assert [len(splits[n]["test"]) for n in ("80_20", "75_25")] == [24, 30]
    assert {len(splits[f"fold_{k}"]["test"]) for k in range(1, 6)} == {24}
    assert len(splits["80_20"]["validation"]) == 9
