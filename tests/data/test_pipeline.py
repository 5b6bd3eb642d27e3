"""The stream of batches: by seed and step alone, whatever the hosts and threads."""

import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from attunet_jax.data.batch import batch_schema, whole_scans
from attunet_jax.data.crops import CropSpec
from attunet_jax.data.dataset import open_dataset
from attunet_jax.data.organ_crops import find_organ_crops, organ_batches
from attunet_jax.data.pipeline import training_batches
from attunet_jax.errors import BadArguments, BadData

SHAPE = (4, 6, 8)


@pytest.fixture
def dataset(prepared):
    return open_dataset(prepared)


CROP = CropSpec(SHAPE, SHAPE, "lowest", foreground_fraction=0.5)
EXACT = CropSpec.exact(SHAPE, "lowest")
USUAL: dict[str, Any] = {
    "crop": CROP,
    "batch_size": 4,
    "seed": 3,
    "shard": (0, 1),
    "start_step": 0,
    "threads": 2,
    "prefetch": 2,
}


@pytest.fixture
def batches(dataset):
    """The first batches of a stream; every stream is closed again."""

    def take(count, case_ids=dataset.case_ids, **changes):
        with closing(
            training_batches(dataset, case_ids, **(USUAL | changes))
        ) as stream:
            return list(itertools.islice(stream, count))

    return take


def order(found) -> list[int]:
    return np.concatenate([batch["case_index"] for batch in found]).tolist()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_batch_has_static_shapes_and_types(batches):
    for batch in batches(4):
        assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
            "image_hu": ((4, *SHAPE), "int16"),
            "label": ((4, *SHAPE), "uint8"),
            "mean_hu": ((4,), "float32"),
            "std_hu": ((4,), "float32"),
            "scan_start": ((4, 3), "int32"),
            "scan_size": ((4, 3), "int32"),
            "case_index": ((4,), "int32"),
        }


def test_the_schema_is_that_of_the_batches(batches, dataset):
    (training,) = batches(1)
    crops = find_organ_crops(dataset, ("case_0",), ("spleen",), EXACT)
    validation = next(organ_batches(dataset, crops, EXACT, batch_size=4, shard=(0, 1)))
    made = whole_scans(training["image_hu"], training["label"])
    for batch in (training, validation, made):
        found = {name: (x.shape, x.dtype) for name, x in batch.items()}
        assert found == batch_schema(4, SHAPE)


def test_whole_scans_are_windows_with_statistics_of_their_own(batches):
    (batch,) = batches(1)
    made = whole_scans(batch["image_hu"], batch["label"])
    for i, image in enumerate(batch["image_hu"].astype(np.float64)):
        assert made["mean_hu"][i] == pytest.approx(image.mean(), rel=1e-6)
        assert made["std_hu"][i] == pytest.approx(image.std(), rel=1e-6)
    assert made["scan_start"].tolist() == [[0, 0, 0]] * 4
    assert made["scan_size"].tolist() == [[4, 6, 8]] * 4


def test_every_case_comes_once_an_epoch_in_another_order(batches):
    rows = order(batches(28, batch_size=2))  # 56 rows are 8 epochs of 7 cases
    epochs = [tuple(rows[i : i + 7]) for i in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) >= 7


def test_every_case_comes_first_at_times(batches):
    firsts = {order(batches(1, batch_size=1, seed=seed))[0] for seed in range(40)}
    assert firsts == set(range(7))


def test_a_row_is_a_part_of_the_case_that_it_names(batches, cases):
    for batch in batches(6):
        for image, label, mean, std, index in zip(
            *(
                batch[k]
                for k in ("image_hu", "label", "mean_hu", "std_hu", "case_index")
            ),
            strict=True,
        ):
            case = cases[index]
            pads = [max(c - n, 0) for n, c in zip(case.label.shape, SHAPE, strict=True)]
            pads = [(p // 2, p - p // 2) for p in pads]
            whole = np.pad(case.image_hu, pads, constant_values=case.image_hu.min())
            labels = np.pad(case.label, pads)
            windows = np.lib.stride_tricks.sliding_window_view(whole, SHAPE)
            places = np.argwhere((windows == image).all((-3, -2, -1)))
            assert len(places) == 1
            cut = tuple(slice(s, s + n) for s, n in zip(places[0], SHAPE, strict=True))
            np.testing.assert_array_equal(label, labels[cut])
            assert mean == np.float32(case.image_hu.mean(dtype=np.float64))
            assert std == pytest.approx(case.image_hu.std(dtype=np.float64), rel=1e-6)


def test_only_the_chosen_cases_come_and_keep_their_index(batches):
    rows = order(batches(6, ["case_5", "case_1", "case_3"], batch_size=2))
    assert [sorted(rows[i : i + 3]) for i in range(0, 12, 3)] == [[1, 3, 5]] * 4


def test_fewer_cases_than_rows_still_make_batches(batches):
    found = batches(3, ["case_2"], batch_size=4)
    assert order(found) == [2] * 12
    crops = {image.tobytes() for batch in found for image in batch["image_hu"]}
    assert len(crops) > 3  # of the 6 places where 4 slices fit into 9


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_hosts_sees_the_same_global_batches(batches, count):
    shards = [batches(5, shard=(i, count)) for i in range(count)]
    joined = [
        {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        for rows in zip(*shards, strict=True)
    ]
    assert shards[0][0]["image_hu"].shape == (4 // count, *SHAPE)
    assert_same(joined, batches(5))


@pytest.mark.parametrize("threads, prefetch", [(1, 1), (4, 3), (3, 8)])
def test_any_number_of_threads_gives_the_same_stream(batches, threads, prefetch):
    changed = batches(6, threads=threads, prefetch=prefetch)
    assert_same(changed, batches(6))


@pytest.mark.parametrize("start", [1, 3, 8])
def test_starting_at_a_step_is_the_same_as_getting_there(batches, start):
    resumed = batches(3, start_step=start, shard=(1, 2))
    assert_same(resumed, batches(start + 3, shard=(1, 2))[start:])


def test_a_far_step_is_reached_at_once(batches):
    began = time.monotonic()
    (batch,) = batches(1, start_step=10_000_000)
    assert batch["case_index"].shape == (4,)
    assert time.monotonic() - began < 5


def test_seeds_differ_and_do_not_follow_each_other(batches):
    def epochs(seed):
        rows = order(batches(4, batch_size=7, seed=seed))
        return [tuple(rows[i : i + 7]) for i in range(0, 28, 7)]

    # Epoch e + 1 of a seed must not be epoch e of the next one.
    seen = [epoch for seed in range(6) for epoch in epochs(seed)]
    assert len(set(seen)) >= 23


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(batch_size=3, shard=(0, 2)), "batch_size=3: cannot be split over 2"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed=2**32), "seed=4294967296"),
        (dict(case_ids=[]), "no cases"),
        (dict(case_ids=["case_0", "case_9"]), "no case 'case_9'"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_at_once(batches, changes, words):
    with pytest.raises(BadArguments, match=words):
        batches(0, **changes)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_record_is_named_with_its_shard(prepared, batches, damage, threads):
    path = prepared / "cases-00001-of-00003.array_record"
    damage(path, 1)
    with pytest.raises(BadData) as caught:
        batches(7, batch_size=1, threads=threads)
    assert str(caught.value).startswith(f"{path}: ")
    assert "case_4" in str(caught.value) and "\n" not in str(caught.value)
    others = [f"case_{i}" for i in (0, 1, 2, 3, 5, 6)]
    assert len(batches(9, others)) == 9


def test_a_record_of_another_case_is_named(prepared, batches):
    # The folder changes after it was opened: sizes and counts cannot tell.
    path = prepared / "cases-00001-of-00003.array_record"
    other = prepared / "cases-00002-of-00003.array_record"
    path.write_bytes(other.read_bytes())
    with pytest.raises(BadData, match=f"{path.name}: holds case case_"):
        batches(7, batch_size=1)


def test_a_shard_that_goes_away_is_named(prepared, batches):
    path = prepared / "cases-00000-of-00003.array_record"
    path.unlink()
    with pytest.raises(BadData, match=path.name):
        batches(7, batch_size=1)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_closing_ends_threads_and_files(dataset, batches):
    def used():
        threads = sum("grain" in thread.name for thread in threading.enumerate())
        return threads, len(os.listdir("/proc/self/fd"))

    def wait_for(state):  # threads that were reading finish what they began
        deadline = time.monotonic() + 5
        while used() != state and time.monotonic() < deadline:
            time.sleep(0.01)
        return used()

    gc.collect()
    gc.disable()  # closing must not need it
    try:
        before = used()
        stream = training_batches(dataset, dataset.case_ids, **USUAL)
        next(stream)
        assert used()[0] > 0 and used()[1] > before[1]
        stream.close()
        assert list(stream) == []
        assert wait_for(before) == before
        for _ in range(3):
            batches(4, threads=4, prefetch=4)
        assert wait_for(before) == before
    finally:
        gc.enable()


def test_a_program_may_end_in_the_middle_of_a_stream(prepared):
    program = f"""
        from attunet_jax.data.crops import CropSpec
        from attunet_jax.data.dataset import open_dataset
        from attunet_jax.data.pipeline import training_batches
        dataset = open_dataset({str(prepared)!r})
        batches = training_batches(
            dataset, dataset.case_ids, CropSpec((4, 6, 8), (4, 6, 8)), batch_size=2,
            seed=0, shard=(0, 1), start_step=0, threads=4, prefetch=8,
        )
        print(next(batches)["case_index"].shape)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2,)\n", "")
