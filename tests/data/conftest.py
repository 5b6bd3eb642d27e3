"""A small prepared data set, written by hand as the format says, for the tests."""

import hashlib
import json

import numpy as np
import pytest

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard


@pytest.fixture(scope="session")
def make_case():
    def make(case_id="case_0", shape=(4, 5, 6), seed=0, **fields):
        rng = np.random.default_rng(seed)
        usual = {
            "image_hu": rng.integers(-1024, 1500, shape).astype(np.int16),
            "label": rng.integers(0, 4, shape).astype(np.uint8),
            "spacing_mm": np.array([2.5, 0.8, 0.8]),
            "affine": np.diag([-0.8, -0.8, 2.5, 1.0]),
            "original_shape": (12, 10, 8),
            "original_affine": np.diag([0.8, 0.8, 1.25, 1.0]),
            "case_id": case_id,
        }
        return Case(**(usual | fields))

    return make


@pytest.fixture(scope="session")
def cases(make_case):
    """Seven cases of other shapes each, smaller and larger than the tests' crops."""
    shapes = [(6, 9, 8), (5, 7, 11), (9, 6, 6), (3, 8, 9), (7, 7, 7), (6, 5, 10)]
    shapes.append((12, 12, 12))
    return [make_case(f"case_{i}", shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.fixture
def prepared(tmp_path, cases):
    """The seven cases in shards of 3, 2 and 2, with one split, as on disk."""
    directory = tmp_path / "prepared"
    directory.mkdir()
    shards, entries, rest = [], [], list(cases)
    for i, count in enumerate((3, 2, 2)):
        here, rest = rest[:count], rest[count:]
        path = directory / f"cases-{i:05d}-of-00003.array_record"
        write_shard(path, [to_bytes(case) for case in here])
        content = path.read_bytes()
        shards.append(
            {
                "file": path.name,
                "records": count,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        entries += [
            {"case_id": case.case_id, "shard": i, "record": j}
            for j, case in enumerate(here)
        ]
    manifest = {
        "format": "attunet_jax.cases",
        "version": 1,
        "organs": {"spleen": 1, "pancreas": 2, "kidney": 3},
        "spacing_mm": [2.5, 0.8, 0.8],
        "settings": {"seed": 0},
        "shards": shards,
        "cases": entries,
    }
    ids = [case.case_id for case in cases]
    parts = {"train": ids[:4], "validation": ids[4:5], "test": ids[5:]}
    splits = {"version": 1, "seed": 0, "splits": {"80_20": parts}}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "splits.json").write_text(json.dumps(splits))
    return directory


@pytest.fixture
def write_dataset(tmp_path):
    """Writes cases into one shard; returns the data set, which has no splits."""

    def write(cases):
        write_shard(tmp_path / "all.array_record", [to_bytes(case) for case in cases])
        manifest = {
            "organs": {"spleen": 1, "pancreas": 2, "kidney": 3},
            "shards": [{"file": "all.array_record", "records": len(cases)}],
            "cases": [
                {"case_id": case.case_id, "shard": 0, "record": i}
                for i, case in enumerate(cases)
            ],
        }
        return Dataset(tmp_path, manifest, {}, "sha")

    return write


@pytest.fixture(scope="session")
def damage():
    """Flips a bit of the record's compressed bytes; the file keeps its size."""

    def flip(path, record):
        content = bytearray(path.read_bytes())
        # Chunks follow each other from the start of the file; the end of a shard's
        # data is its last byte before the zeros that fill up its first 64 KiB.
        data_end = max(i for i in range(1 << 16) if content[i])
        records = 2 if path.name.startswith(("cases-00001", "cases-00002")) else 3
        content[data_end * (2 * record + 1) // (2 * records)] ^= 0x10
        path.write_bytes(content)

    return flip
