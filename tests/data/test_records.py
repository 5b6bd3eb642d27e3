"""Records: what is written comes back; anything else is refused in one line."""

import json
import pickle

import msgpack
import numpy as np
import pytest

from attunet_jax.data.records import from_bytes, open_bytes, to_bytes
from attunet_jax.errors import BadData
from attunet_jax.intensity import HuStatistics

HAND_STD = (90005 / 3 - (299 / 3) ** 2) ** 0.5  # of 1, -2 and 300


def fields_of(case):
    return msgpack.unpackb(to_bytes(case))


def packed(fields) -> bytes:
    return msgpack.Packer().pack(fields)


def refusal(data) -> str:
    with pytest.raises(BadData) as caught:
        from_bytes(data)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_a_case_comes_back_as_it_was(make_case):
    case = make_case("amos_0007.v-2", (3, 4, 5))
    back = from_bytes(to_bytes(case))
    for name in ("image_hu", "label", "spacing_mm", "affine", "original_affine"):
        before, after = getattr(case, name), getattr(back, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    assert back.original_shape == (12, 10, 8)
    assert (back.case_id, back.version) == ("amos_0007.v-2", 3)


def test_a_case_whose_arrays_are_views_comes_back(make_case):
    usual = make_case(shape=(4, 5, 6))
    turned = make_case(
        image_hu=usual.image_hu[::-1].swapaxes(0, 2),
        label=usual.label[::-1].swapaxes(0, 2),
    )
    back = from_bytes(to_bytes(turned))
    for d, h, w in np.ndindex(4, 5, 6):
        assert back.image_hu[w, h, d] == usual.image_hu[3 - d, h, w]
        assert back.label[w, h, d] == usual.label[3 - d, h, w]


def test_a_record_written_by_hand_is_read():
    doubles = np.arange(16.0)
    record = {
        "format": "attunet_jax.case",
        "version": 3,
        "case_id": "a",
        # 1, -2 and 300 as int16: low bytes, then high bytes, in LZ4's own words "so
        # many literals".
        "image_hu": ["<i2", [1, 1, 3], [b"\x60\x01\xfe\x2c\x00\xff\x01"]],
        "label": ["|u1", [1, 1, 3], [b"\x30\x00\x02\xff"]],
        "spacing_mm": ["<f8", [3], np.array([5, 1, 1], "<f8").tobytes()],
        "affine": ["<f8", [4, 4], doubles.astype("<f8").tobytes()],
        "original_shape": ["<i8", [3], np.array([3, 1, 1], "<i8").tobytes()],
        "original_affine": ["<f8", [4, 4], doubles.astype("<f8").tobytes()],
        "hu": ["<f8", [3], np.array([-2, 299 / 3, HAND_STD], "<f8").tobytes()],
        # One slab: no voxel of label 1, one of label 2; 255 is no organ's.
        "organ_voxels": ["<u4", [1, 2], np.array([0, 1], "<u4").tobytes()],
    }
    case = from_bytes(packed(record))
    assert case.image_hu.tolist() == [[[1, -2, 300]]]
    assert case.label.tolist() == [[[0, 2, 255]]]
    assert case.affine[1].tolist() == [4, 5, 6, 7]
    assert case.original_shape == (3, 1, 1)
    assert open_bytes(packed(record)).hu == HuStatistics(-2, 299 / 3, HAND_STD)
    assert case.hu.std == pytest.approx(HAND_STD, rel=1e-12)
    written = fields_of(case)
    written["hu"] = record["hu"]  # the deviation's last digit
    for name in ("image_hu", "label"):  # LZ4 may choose other words
        written[name][2] = record[name][2]
    assert written == record
    # As it was written before the voxels of organs were counted.
    del record["organ_voxels"]
    older = open_bytes(packed(record | {"version": 2}))
    assert older.stored_organ_voxels is None
    assert older.organ_voxels.tolist() == [[0, 1]]
    assert older.case().label.tolist() == [[[0, 2, 255]]]


def test_the_voxels_of_each_organ_are_counted_by_slab(make_case):
    case = make_case(shape=(21, 5, 6))  # slabs of 8, 8 and 5 slices
    record = open_bytes(to_bytes(case))
    expected = [
        [np.count_nonzero(case.label[a:b] == value) for value in (1, 2, 3)]
        for a, b in ((0, 8), (8, 16), (16, 21))
    ]
    assert record.stored_organ_voxels is not None
    assert record.stored_organ_voxels.tolist() == expected
    empty = make_case(shape=(9, 5, 6), label=np.zeros((9, 5, 6), np.uint8))
    assert open_bytes(to_bytes(empty)).organ_voxels.shape == (2, 0)


def test_the_counts_are_less_than_a_hundredth_of_the_record(make_case):
    """117 organs, as TotalSegmentator's, in a scan of 6 mm."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 118, (9, 9, 9)).astype(np.uint8)
    label = blocks.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    image = rng.normal(0, 60, label.shape).astype(np.int16)
    case = make_case(image_hu=image, label=label)
    record = to_bytes(case)
    fields = msgpack.unpackb(record)
    counted = packed(fields.pop("organ_voxels"))
    assert 100 * len(counted) < len(record)


def test_counts_that_are_not_of_the_label_are_refused(make_case):
    fields = fields_of(make_case(shape=(4, 5, 6)))
    for shape, values in (
        ([2, 1], [1, 1]),  # two slabs
        ([1, 255], [0] * 255),
        ([1, 2], [60, 61]),  # of 120 voxels
        ([1], [4]),
    ):
        content = np.array(values, "<u4").tobytes()
        fields["organ_voxels"] = ["<u4", shape, content]
        assert "organ_voxels" in refusal(packed(fields))


def test_a_part_of_a_record_is_that_part_of_the_case(make_case):
    rng = np.random.default_rng(5)
    case = make_case(shape=(21, 5, 6))  # slabs of 8, 8 and 5 slices
    record = open_bytes(to_bytes(case))
    for _ in range(60):
        ends = [sorted(rng.integers(0, n + 1, 2)) for n in (21, 5, 6)]
        part = tuple(slice(a, b) for a, b in ends)
        for name in ("image_hu", "label"):
            got = getattr(record, name)[part]
            np.testing.assert_array_equal(got, getattr(case, name)[part])
            assert got.dtype == getattr(case, name).dtype


def test_only_the_slabs_that_are_asked_for_are_read(make_case):
    fields = fields_of(make_case(shape=(24, 3, 4)))
    fields["image_hu"][2][1] = b"\x00"
    record = open_bytes(packed(fields))
    assert record.image_hu[0:8, :, :].shape == (8, 3, 4)
    assert record.image_hu[16:24, :, :].shape == (8, 3, 4)
    with pytest.raises(BadData, match="slab 1"):
        record.image_hu[7:9, :, :]


def test_slabs_that_do_not_hold_the_shape_are_refused(make_case):
    fields = fields_of(make_case(shape=(24, 3, 4)))
    for slabs in [
        [],
        [b"\x00"],
        [b"\x00"] * 4,
        ["text"] * 3,
        [b""] * 3,
        b"\x00" * 3,
        [b"\x10\x01"] * 3,
        # A match that reaches before the beginning, and one without an end.
        [b"\x1f\x01\xff\xff\xff\xff\xff\xff"] * 3,
    ]:
        fields["label"][2] = slabs
        refusal(packed(fields))


def test_a_shape_no_slab_can_hold_is_refused_before_memory_is_asked_for(make_case):
    fields = fields_of(make_case(shape=(8, 5, 6)))
    fields["image_hu"][1] = fields["label"][1] = [8, 2**20, 2**20]
    assert "cannot hold" in refusal(packed(fields))


def test_statistics_in_a_record_are_those_of_all_voxels(make_case):
    case = make_case(shape=(9, 8, 7), seed=2)
    assert open_bytes(to_bytes(case)).hu == HuStatistics.of(case.image_hu)


def test_a_record_cut_off_anywhere_is_refused(make_case):
    data = to_bytes(make_case(shape=(2, 2, 2)))
    for length in range(len(data)):
        refusal(data[:length])
    refusal(data + b"\x00")


def test_a_flipped_bit_gives_another_case_or_a_refusal_never_a_crash(make_case):
    data = to_bytes(make_case(shape=(1, 2, 2)))
    refused = 0
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                from_bytes(bytes(flipped))
            except BadData:
                refused += 1
    assert refused > 8 * 150  # names, types, shapes and lengths are about 200 bytes


def test_foreign_bytes_are_refused():
    for data in [
        b"",
        b"\x00",
        b"hello",
        json.dumps({"format": "attunet_jax.case", "version": 3}).encode(),
        pickle.dumps({"format": "attunet_jax.case"}),
        packed(["attunet_jax.case", 1]),
        packed({"format": "something else", "version": 1}),
        packed({1: 2}),
        b"\x91" * 100_000,  # lists in lists in lists
        b"\xdd\xff\xff\xff\xff",  # a list of four billion
        b"\x81\xc7\x00\x05\x01",  # an extension type as a key
    ]:
        refusal(data)


def test_a_record_without_a_placement_is_read(make_case):
    fields = fields_of(make_case())
    assert "original_placement" not in fields
    assert from_bytes(packed(fields)).original_placement is None


def test_the_placement_of_a_nifti_file_comes_back(make_case):
    numbers = np.linspace(-1e6, 1e6, 25)
    numbers[5] = np.nan  # fields that nobody reads may hold anything
    back = from_bytes(to_bytes(make_case(original_placement=numbers)))
    np.testing.assert_array_equal(back.original_placement, numbers)
    fields = fields_of(make_case(original_placement=numbers))
    fields["original_placement"] = ["<f8", [24], bytes(192)]
    assert "original_placement" in refusal(packed(fields))


def test_another_version_says_what_to_do(make_case):
    message = refusal(packed(fields_of(make_case()) | {"version": 4}))
    assert "version 4" in message and "update attunet_jax" in message
    message = refusal(packed(fields_of(make_case()) | {"version": 1}))
    assert "version 1" in message and "prepare the data again" in message


def test_a_version_that_is_none_is_refused(make_case):
    fields = fields_of(make_case())
    for version in [0, -1, True, 1.0, "1", None]:
        assert "version" in refusal(packed(fields | {"version": version}))


def test_only_the_types_of_the_format_are_read(make_case):
    fields = fields_of(make_case())
    for dtype in ["|O", "<f4", ">i2", "<i4", "V2", "i2", ""]:
        fields["image_hu"][0] = dtype
        assert "image_hu" in refusal(packed(fields))


def test_a_shape_that_is_not_that_of_the_bytes_is_refused(make_case):
    fields = fields_of(make_case(shape=(4, 5, 6)))
    for shape in [
        [4, 5],
        [4, 5, 7],
        [4, 5, 6, 1],
        [-4, -5, 6],
        [0, 5, 6],
        [2**40, 2**40, 2**40],
        [4.0, 5, 6],
        [True, 20, 6],
        [120],
        [],
        "456",
        None,
    ]:
        fields["label"][1] = shape
        assert "label" in refusal(packed(fields))


def test_a_field_without_meaning_is_refused(make_case):
    fields = fields_of(make_case())
    for name, entry in [
        ("affine", ["<f8", [2, 8], bytes(128)]),
        ("spacing_mm", ["<f8", [3], bytes(24)]),
        ("original_shape", ["<i8", [3, 1], bytes(24)]),
        ("original_shape", ["<i8", [0], b""]),
        ("original_shape", ["<i8", [3], bytes(24)]),
        ("label", "not a list"),
        ("label", ["|u1", [120], "text" * 30]),
        ("image_hu", []),
    ]:
        assert name in refusal(packed(fields | {name: entry}))


def test_a_missing_and_an_unknown_field_are_named(make_case):
    fields = fields_of(make_case())
    assert "'affine'" in refusal(
        packed({k: fields[k] for k in fields if k != "affine"})
    )
    assert "'note'" in refusal(packed(fields | {"note": "hello"}))


def test_a_case_id_that_is_no_plain_name_is_refused(make_case):
    fields = fields_of(make_case())
    for case_id in [
        "",
        ".hidden",
        "../up",
        "a/b",
        "a\\b",
        "a\n",
        "a b",
        "\u0301a",
        None,
        7,
    ]:
        refusal(packed(fields | {"case_id": case_id}))
        with pytest.raises(BadData):
            make_case(case_id)


def test_a_case_that_breaks_the_format_cannot_be_made(make_case):
    for change, word in [
        ({"image_hu": np.zeros((4, 5, 6), np.float32)}, "image_hu is float32"),
        ({"label": np.zeros((4, 5, 6), np.int16)}, "label is int16"),
        ({"label": np.zeros((4, 5, 7), np.uint8)}, r"\(4, 5, 7\), not \(4, 5, 6\)"),
        ({"spacing_mm": np.array([1.0, 0.0, 1.0])}, "spacing_mm"),
        ({"spacing_mm": np.array([1.0, np.nan, 1.0])}, "spacing_mm"),
        ({"affine": np.full((4, 4), np.inf)}, "affine is not finite"),
        ({"original_affine": np.eye(3)}, "original_affine"),
        ({"original_shape": (4, 0, 4)}, "original_shape"),
    ]:
        with pytest.raises(BadData, match=word):
            make_case(**change)
