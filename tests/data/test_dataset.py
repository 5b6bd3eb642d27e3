"""A prepared folder: opened when whole, otherwise refused with the file's name."""

import hashlib
import json

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadArguments, BadData

SHARD_1 = "cases-00001-of-00003.array_record"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refusal(directory) -> str:
    with pytest.raises(BadData) as caught:
        open_dataset(directory)
    message = str(caught.value)
    assert message.startswith(str(directory)) and "\n" not in message
    return message


def test_an_opened_folder_says_what_is_in_it(prepared):
    dataset = open_dataset(prepared)
    assert dataset.directory == prepared
    assert dataset.case_ids == tuple(f"case_{i}" for i in range(7))
    assert dataset.labels.values == {"spleen": 1, "pancreas": 2, "kidney": 3}
    assert dataset.manifest["spacing_mm"] == [2.5, 0.8, 0.8]
    text = (prepared / "manifest.json").read_bytes()
    assert dataset.manifest_sha256 == hashlib.sha256(text).hexdigest()


def test_a_folder_is_opened_by_its_name_too(prepared):
    assert open_dataset(str(prepared)).directory == prepared


def test_a_split_gives_the_cases_of_its_parts(prepared):
    assert open_dataset(prepared).split("80_20") == {
        "train": ("case_0", "case_1", "case_2", "case_3"),
        "validation": ("case_4",),
        "test": ("case_5", "case_6"),
    }


def test_an_unknown_split_lists_those_there_are(prepared):
    with pytest.raises(BadArguments, match="no split '50_50'; it has: 80_20"):
        open_dataset(prepared).split("50_50")
    with pytest.raises(BadArguments, match="^--config.data.split=5: .*no split '5'"):
        open_dataset(prepared).split("5", "--config.data.split")


def test_every_case_is_read_from_its_shard(prepared, cases):
    dataset = open_dataset(prepared)
    for number, case in enumerate(cases):
        assert dataset.index(case.case_id) == number  # 3 + 2 + 2 in order
        read = dataset.case(case.case_id)
        np.testing.assert_array_equal(read.image_hu, case.image_hu)
        np.testing.assert_array_equal(read.label, case.label)
    assert dataset.shard_path("case_4") == prepared / SHARD_1


def test_records_need_not_lie_in_the_order_of_the_cases(prepared, cases):
    edit(prepared / "manifest.json", lambda m: m["cases"].reverse())
    dataset = open_dataset(prepared)
    assert dataset.case_ids[0] == "case_6"
    assert [dataset.index(c.case_id) for c in cases] == list(range(7))
    np.testing.assert_array_equal(dataset.case("case_3").label, cases[3].label)


@pytest.mark.parametrize("ask", ["case", "index", "shard_path"])
def test_an_unknown_case_is_named(prepared, ask):
    with pytest.raises(BadArguments, match="no case 'case_9'"):
        getattr(open_dataset(prepared), ask)("case_9")


def test_a_folder_that_is_not_there_says_to_prepare(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert "no such folder" in message and "python -m data_prep.prepare" in message


@pytest.mark.parametrize("file", ["manifest.json", "splits.json"])
def test_a_missing_index_says_to_prepare(prepared, file):
    (prepared / file).unlink()
    message = refusal(prepared)
    assert file in message and "python -m data_prep.prepare" in message


@pytest.mark.parametrize("file", ["manifest.json", "splits.json"])
def test_an_index_that_is_no_json_map_is_refused(prepared, file):
    for text in [
        "",
        "{",
        "[]",
        "null",
        "\xff\xfe",
        "[" * 100_000,
        '{"version": "1"}',
        '"version"',
    ]:
        (prepared / file).write_bytes(text.encode("latin-1"))
        assert file in refusal(prepared)


@pytest.mark.parametrize("file", ["manifest.json", "splits.json"])
def test_a_newer_index_says_to_update(prepared, file):
    edit(prepared / file, lambda content: content.update(version=2))
    message = refusal(prepared)
    assert file in message and "update attunet_jax" in message


def test_a_foreign_manifest_is_refused(prepared):
    edit(prepared / "manifest.json", lambda m: m.update(format="nnunet"))
    assert "not a manifest of prepared data" in refusal(prepared)


def first(field, **change):
    return lambda manifest: manifest[field][0].update(change)


def second(field, **change):
    return lambda manifest: manifest[field][1].update(change)


def test_a_manifest_that_contradicts_itself_is_refused(prepared):
    path = prepared / "manifest.json"
    whole = path.read_text()
    for change, words in [
        (lambda m: m.pop("organs"), "organs"),
        (lambda m: m.update(organs={}), "organs"),
        (lambda m: m.update(ignore_value=4), "ignore_value 4 is not 255"),
        (lambda m: m["organs"].update(spleen=0), "from 1 to 254"),
        (lambda m: m["organs"].update(spleen=255), "from 1 to 254"),
        (lambda m: m["organs"].update(spleen=True), "from 1 to 254"),
        (lambda m: m["organs"].update(spleen=2), "not distinct"),
        (lambda m: m.update(spacing_mm=[1, 1]), "spacing_mm"),
        (lambda m: m.update(spacing_mm=[1, 1, 0]), "spacing_mm"),
        (lambda m: m.update(spacing_mm=[1, 1, float("nan")]), "spacing_mm"),
        (lambda m: m.update(spacing_mm=[1, 1, "2"]), "spacing_mm"),
        (lambda m: m.pop("settings"), "settings"),
        (lambda m: m.pop("shards"), "shards or cases"),
        (lambda m: m.update(cases={}), "shards or cases"),
        (lambda m: m.update(cases=[], shards=[]), "there are no cases"),
        (lambda m: m["shards"][0].pop("sha256"), "lacks"),
        (first("shards", records=-3), "no count"),
        (first("shards", bytes="9"), "no count"),
        (first("shards", records=2), "case_2 is in shard 0, record 2"),
        (lambda m: m["cases"].pop(), "another number of records"),
        (lambda m: m["cases"][0].pop("record"), "lacks"),
        (lambda m: m["cases"].append("case_9"), "lacks"),
        (first("cases", case_id="../case_0"), "no case id"),
        (first("cases", case_id="case_1"), "there twice"),
        (first("cases", shard=3), "shard 3, record 0"),
        (first("cases", shard=-1), "shard -1"),
        (first("cases", record=1), "share a record"),
    ]:
        path.write_text(whole)
        edit(path, change)
        message = refusal(prepared)
        assert words in message and "manifest.json" in message


def test_a_manifest_cannot_name_files_outside_the_folder(prepared):
    (prepared.parent / "out.array_record").write_bytes(
        (prepared / SHARD_1).read_bytes()
    )
    for name in [
        "../out.array_record",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        ".x",
        "a\n",
    ]:
        edit(prepared / "manifest.json", second("shards", file=name))
        assert "no file name inside this folder" in refusal(prepared)


def test_a_missing_shard_is_named(prepared):
    (prepared / SHARD_1).unlink()
    assert refusal(prepared).startswith(f"{prepared / SHARD_1}: no such shard")


def test_a_truncated_shard_is_named_with_both_sizes(prepared):
    path = prepared / SHARD_1
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    message = refusal(prepared)
    assert message.startswith(str(path))
    assert str(size) in message and str(size // 2) in message


def test_a_shard_whose_end_was_lost_and_filled_up_is_named(prepared):
    path = prepared / SHARD_1
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    assert refusal(prepared).startswith(str(path))


def test_a_shard_of_another_run_is_named(prepared):
    # Of the right size (shards are filled up to 64 KiB), but with 3 records, not 2.
    other = prepared / "cases-00000-of-00003.array_record"
    (prepared / SHARD_1).write_bytes(other.read_bytes())
    message = refusal(prepared)
    assert message.startswith(str(prepared / SHARD_1)) and "3 readable" in message


def test_a_record_of_another_case_is_noticed_when_read(prepared):
    other = prepared / "cases-00002-of-00003.array_record"
    (prepared / SHARD_1).write_bytes(other.read_bytes())
    dataset = open_dataset(prepared)
    with pytest.raises(BadData, match="holds case case_5 where .* says case_3") as e:
        dataset.case("case_3")
    assert str(e.value).startswith(str(prepared / SHARD_1))


def test_a_damaged_record_is_noticed_when_read(prepared, damage):
    damage(prepared / SHARD_1, 1)
    dataset = open_dataset(prepared)
    dataset.case("case_3")
    with pytest.raises(BadData, match=SHARD_1):
        dataset.case("case_4")


def test_bytes_that_are_no_case_are_named_with_shard_and_case(prepared):
    dataset = open_dataset(prepared)
    with pytest.raises(BadData, match=f"{SHARD_1}: record of case case_4: damaged"):
        dataset.open("case_4", b"")


def test_checksums_hold_for_what_was_written(prepared):
    open_dataset(prepared).verify_checksums()


def test_checksums_name_every_changed_shard(prepared, damage):
    dataset = open_dataset(prepared)
    names = ["cases-00000-of-00003.array_record", "cases-00002-of-00003.array_record"]
    for name in names:
        damage(prepared / name, 1)
    with pytest.raises(BadData, match="SHA-256") as caught:
        dataset.verify_checksums()
    for name in names:
        assert name in str(caught.value)
    assert SHARD_1 not in str(caught.value)


def test_a_split_that_cannot_be_used_is_refused(prepared):
    for splits, words in [
        (None, "no map"),
        ({}, "no map"),
        ({"a": {"train": [], "test": []}}, "train, validation, test"),
        ({"a": {"train": [], "validation": [], "test": "case_0"}}, "split a"),
        (
            {"a": {"train": ["case_9"], "validation": [], "test": []}},
            "train: no case 'case_9'",
        ),
        ({"a": {"train": [["case_1"]], "validation": [], "test": []}}, "no case"),
        (
            {"a": {"train": ["case_1"], "validation": [], "test": ["case_1"]}},
            "case case_1 is in train and test",
        ),
        (
            {"a": {"train": ["case_1", "case_1"], "validation": [], "test": []}},
            "case case_1 is in train and train",
        ),
    ]:
        edit(
            prepared / "splits.json", lambda content, s=splits: content.update(splits=s)
        )
        message = refusal(prepared)
        assert words in message and "splits.json" in message
