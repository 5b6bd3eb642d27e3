"""Crops: the voxels of the scan at the place they should be, and nothing else."""

import tracemalloc
from collections import Counter
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from attunet_jax.data.crops import CropSpec, centre_crop, random_crop
from attunet_jax.data.records import open_bytes, to_bytes
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import CtNormalisation


@pytest.fixture
def numbered(make_case):
    """A case of 6 x 5 x 4 voxels, each its own number: a crop says where it began."""
    image = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    label = np.zeros((6, 5, 4), np.uint8)
    label[4, 1, 2] = label[0, 0, 0] = label[5, 4, 3] = 2
    return make_case(image_hu=image, label=label)


def crops(case, shape, fraction, count, seed=0, smallest=(1, 1, 1), padding="lowest"):
    rng = np.random.default_rng(seed)
    spec = CropSpec(shape, smallest, padding, fraction)
    for _ in range(count):
        yield random_crop(case, rng, spec)


def test_a_random_crop_is_a_part_of_image_and_label_at_one_place(numbered):
    for crop in crops(numbered, (3, 2, 4), 0.0, 50):
        d, h, w = np.unravel_index(int(crop["image_hu"][0, 0, 0]), (6, 5, 4))
        cut = (slice(d, d + 3), slice(h, h + 2), slice(w, w + 4))
        np.testing.assert_array_equal(crop["image_hu"], numbered.image_hu[cut])
        np.testing.assert_array_equal(crop["label"], numbered.label[cut])
        assert crop["image_hu"].dtype == np.int16 and crop["label"].dtype == np.uint8


def test_all_places_are_equally_likely(numbered):
    # 4 x 4 x 1 places; 3200 draws are 200 each, with a deviation of 14.
    starts = Counter(
        int(crop["image_hu"][0, 0, 0]) for crop in crops(numbered, (3, 2, 4), 0.0, 3200)
    )
    expected = {d * 20 + h * 4 for d in range(4) for h in range(4)}
    assert set(starts) == expected
    assert all(130 < n < 270 for n in starts.values())


def test_a_crop_as_large_as_the_scan_is_the_scan(numbered):
    for fraction in (0.0, 1.0):
        (crop,) = crops(numbered, (6, 5, 4), fraction, 1)
        np.testing.assert_array_equal(crop["image_hu"], numbered.image_hu)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_smaller_scan_lies_in_the_middle_of_its_lowest_hu(make_case, fraction):
    case = make_case(shape=(3, 8, 5), seed=3)
    # Along D 3 -> 6: one before, two after; along W 5 -> 9: two and two; H is cut.
    image = np.pad(case.image_hu, ((1, 2), (0, 0), (2, 2)), constant_values=-9999)
    image[image == -9999] = case.image_hu.min()
    label = np.pad(case.label, ((1, 2), (0, 0), (2, 2)))
    starts = set()
    for crop in crops(case, (6, 4, 9), fraction, 60):
        here = [
            h
            for h in range(5)
            if np.array_equal(crop["image_hu"], image[:, h : h + 4])
            and np.array_equal(crop["label"], label[:, h : h + 4])
        ]
        assert len(here) == 1
        starts |= set(here)
    assert starts == {0, 1, 2, 3, 4}


def test_a_foreground_crop_is_centred_on_an_organ(numbered):
    seen = Counter()
    for crop in crops(numbered, (1, 1, 1), 1.0, 600):
        assert crop["label"].item() == 2
        seen[int(crop["image_hu"].item())] += 1
    # (0, 0, 0), (4, 1, 2) and (5, 4, 3): 200 each, with a deviation of 12.
    assert set(seen) == {0, 86, 119} and min(seen.values()) > 140


def test_a_foreground_crop_stays_inside_the_scan(numbered):
    starts = {int(c["image_hu"][0, 0, 0]) for c in crops(numbered, (3, 3, 3), 1.0, 100)}
    # Corner (0,0,0) -> start (0,0,0); (4,1,2) -> (3,0,1); corner (5,4,3) -> (3,2,1).
    assert starts == {0, 61, 69}


def test_organs_that_are_trained_come_equally_often_whatever_their_size(make_case):
    label = np.zeros((20, 10, 10), np.uint8)
    label[:9] = 1  # 900 voxels in two slabs
    label[17, 3, 4:6] = 3  # 2 voxels
    label[12:] = np.where(label[12:], label[12:], 2)  # not trained
    case = make_case(shape=label.shape, label=label)
    spec = CropSpec((1, 1, 1), (1, 1, 1), "lowest", 1.0, organs=(1, 3, 7))
    rng = np.random.default_rng(0)
    found = Counter(random_crop(case, rng, spec)["label"].item() for _ in range(600))
    # 300 each, with a deviation of 12; organ 7 is not there.
    assert set(found) == {1, 3} and min(found.values()) > 250
    # Without any trained organ: anywhere, so background too.
    spec = CropSpec((1, 1, 1), (1, 1, 1), "lowest", 1.0, organs=(7,))
    found = Counter(random_crop(case, rng, spec)["label"].item() for _ in range(600))
    assert set(found) >= {0, 1, 2}


def test_all_voxels_of_an_organ_are_equally_likely(make_case):
    label = np.zeros((17, 2, 2), np.uint8)
    places = [(0, 0, 1), (0, 1, 1), (7, 0, 0), (8, 1, 0), (15, 1, 1), (16, 0, 0)]
    for place in places:
        label[place] = 4
    case = make_case(
        shape=label.shape,
        image_hu=np.arange(label.size, dtype=np.int16).reshape(label.shape),
        label=label,
    )
    found = Counter(c["image_hu"].item() for c in crops(case, (1, 1, 1), 1.0, 1200))
    assert set(found) == {int(np.ravel_multi_index(p, label.shape)) for p in places}
    assert min(found.values()) > 150  # 200 each, with a deviation of 13


def test_records_with_and_without_counts_give_the_crops_of_the_case(make_case):
    """With counts one slab of the label is read besides the crop, without all are."""
    case = make_case(shape=(40, 6, 5), seed=8)
    fields = msgpack.unpackb(to_bytes(case))
    del fields["organ_voxels"]
    older = msgpack.Packer().pack(fields | {"version": 2})
    spec = CropSpec((2, 2, 2), (1, 1, 1), "lowest", 1.0, organs=(1, 3))

    def cut(make):
        rng = np.random.default_rng(1)
        return [random_crop(make(), rng, spec) for _ in range(20)]

    expected = cut(lambda: case)
    unpacked = Counter()
    for name, record in (("new", to_bytes(case)), ("old", older)):

        def make(name=name, record=record):
            opened = open_bytes(record)
            slabs = opened.label.slabs
            watched = _Counting(slabs, unpacked, name)
            return replace(opened, label=replace(opened.label, slabs=watched))

        for got, want in zip(cut(make), expected, strict=True):
            np.testing.assert_array_equal(got["image_hu"], want["image_hu"])
            np.testing.assert_array_equal(got["label"], want["label"])
    # Of 20 crops: 1 slab of the centre and 1 or 2 of the crop; before, 5 more.
    assert unpacked["new"] <= 20 * 3 and unpacked["old"] == unpacked["new"] + 20 * 5


class _Counting(list):
    """Slabs that count how often they are read."""

    def __init__(self, slabs, counter, name):
        super().__init__(slabs)
        self._counter, self._name = counter, name

    def __getitem__(self, index):
        self._counter[self._name] += 1
        return super().__getitem__(index)


def test_the_asked_share_of_crops_is_centred_on_organs(make_case):
    label = np.zeros((20, 20, 20), np.uint8)
    label[10, 10, 10] = 1
    case = make_case(shape=(20, 20, 20), label=label)
    hits = sum(c["label"].item() for c in crops(case, (1, 1, 1), 0.25, 2000))
    assert 420 < hits < 580  # 500, with a deviation of 19


def test_without_organs_a_foreground_crop_is_a_random_one(make_case):
    image = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    case = make_case(image_hu=image, label=np.zeros((6, 5, 4), np.uint8))
    starts = {int(c["image_hu"][0, 0, 0]) for c in crops(case, (5, 4, 3), 1.0, 100)}
    assert starts == {
        d * 20 + h * 4 + w for d in (0, 1) for h in (0, 1) for w in (0, 1)
    }


def test_the_same_generator_gives_the_same_crops(numbered):
    first, second, other = (
        [int(c["image_hu"][0, 0, 0]) for c in crops(numbered, (3, 2, 2), 0.5, 20, seed)]
        for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_centre_crop_lies_in_the_middle(numbered):
    for shape, start in [
        ((2, 3, 4), (2, 1, 0)),
        ((1, 2, 3), (2, 1, 0)),
        ((6, 5, 4), (0, 0, 0)),
    ]:
        crop = centre_crop(numbered, CropSpec.exact(shape, "lowest"))
        cut = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        np.testing.assert_array_equal(crop["image_hu"], numbered.image_hu[cut])
        np.testing.assert_array_equal(crop["label"], numbered.label[cut])


def test_a_centre_crop_is_padded_like_a_random_one(make_case):
    case = make_case(shape=(2, 2, 2), seed=5)
    crop = centre_crop(case, CropSpec.exact((5, 2, 4), "lowest"))
    lowest = case.image_hu.min()
    expected = np.full((5, 2, 4), lowest)
    expected[1:3, :, 1:3] = case.image_hu
    np.testing.assert_array_equal(crop["image_hu"], expected)
    assert crop["label"][1:3, :, 1:3].tolist() == case.label.tolist()
    assert crop["label"].sum() == case.label.sum()


def test_the_scan_is_where_the_crop_says(make_case):
    """Cut along D, padded to the minimum shape along H, larger than that along W."""
    case = make_case(shape=(9, 3, 6), seed=4)
    for crop in crops(case, (4, 8, 10), 0.0, 5, smallest=(2, 6, 5)):
        np.testing.assert_array_equal(crop["scan_start"], [0, 1, 2])
        np.testing.assert_array_equal(crop["scan_size"], [4, 6, 6])
        # H: 3 voxels in the middle of 6, which are in the middle of 8.
        rows = crop["image_hu"][:, 2:5, 2:8]
        assert any(
            np.array_equal(rows, case.image_hu[d : d + 4]) for d in range(9 - 4 + 1)
        )


def test_padding_by_line_minimum_is_numpys_for_image_and_label(make_case):
    label = np.zeros((4, 3, 5), np.uint8)
    label[:, 1, 1] = 2  # a whole line of organ: the published code pads it by organ
    case = make_case(shape=(4, 3, 5), label=label, seed=6)
    (crop,) = crops(case, (8, 8, 8), 0.0, 1, smallest=(7, 3, 6), padding="line_minimum")
    before_after = ((1, 2), (0, 0), (0, 1))
    for name in ("image_hu", "label"):
        whole = getattr(case, name)
        padded = np.pad(whole, before_after, mode="minimum")
        scan = tuple(
            slice(s, s + n)
            for s, n in zip(crop["scan_start"], crop["scan_size"], strict=True)
        )
        np.testing.assert_array_equal(crop[name][scan], padded)
    assert (crop["label"] == 2).sum() == 7
    assert crop["scan_size"].tolist() == [7, 3, 6]


def test_mean_and_deviation_are_those_of_the_whole_case(make_case):
    case = make_case(shape=(7, 8, 9), seed=2)
    crop = centre_crop(case, CropSpec.exact((2, 2, 2), "lowest"))
    values = case.image_hu.astype(np.float64)
    assert crop["mean_hu"] == np.float32(values.mean())
    np.testing.assert_allclose(crop["std_hu"], values.std(), rtol=1e-7)
    assert crop["mean_hu"].dtype == crop["std_hu"].dtype == np.float32


def test_a_run_with_numbers_of_its_own_clips_the_crop_and_says_its_mean(make_case):
    numbers = CtNormalisation(low_hu=-90, high_hu=210, mean_hu=61.5, std_hu=40.25)
    case = make_case(shape=(5, 4, 6), seed=2)
    before = case.image_hu.copy()
    for shape, padding in (((3, 4, 2), "lowest"), ((7, 6, 6), "line_minimum")):
        plain = centre_crop(case, CropSpec.exact(shape, padding))
        crop = centre_crop(case, CropSpec.exact(shape, padding, numbers))
        expected = plain["image_hu"].clip(-90, 210)
        np.testing.assert_array_equal(crop["image_hu"], expected)
        assert crop["image_hu"].dtype == np.int16
        assert (crop["mean_hu"], crop["std_hu"]) == (61.5, 40.25)
        for name in plain.keys() - {"image_hu", "mean_hu", "std_hu"}:
            np.testing.assert_array_equal(crop[name], plain[name])
    np.testing.assert_array_equal(case.image_hu, before)


def test_nothing_as_large_as_the_scan_is_made(make_case):
    case = make_case(shape=(50, 200, 200))  # 4 MB of image
    tracemalloc.start()
    for crop in crops(case, (8, 8, 8), 0.0, 3):
        assert crop["image_hu"].shape == (8, 8, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_a_fraction_of_crops_is_between_0_and_1():
    for fraction in (-0.1, 1.5):
        with pytest.raises(BadArguments, match=f"foreground_fraction={fraction}"):
            CropSpec((1, 1, 1), (1, 1, 1), "lowest", fraction)
