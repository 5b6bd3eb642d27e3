"""A small prepared data set, written by hand as the format says, for the tests."""

import hashlib
import json

import numpy as np
import pytest

from attunet_jax.data.records import Case, to_bytes
from attunet_jax.data.shards import write_shard


def make_case(case_id, shape=(4, 5, 6), seed=0, organs=3, **fields):
    rng = np.random.default_rng(seed)
    case = {
        "image_hu": rng.integers(-1024, 1500, shape).astype(np.int16),
        "label": rng.integers(0, organs + 1, shape).astype(np.uint8),
        "spacing_mm": np.array([2.5, 0.8, 0.8]),
        "affine": np.diag([-0.8, -0.8, 2.5, 1.0]),
        "original_shape": (12, 10, 8),
        "original_affine": np.diag([0.8, 0.8, 1.25, 1.0]),
        "case_id": case_id,
    }
    return Case(**(case | fields))


def write_dataset(directory, cases, shard_sizes, splits):
    """The prepared folder as data_prep.prepare writes it, with the fields in use."""
    directory.mkdir(parents=True, exist_ok=True)
    shards, entries, rest = [], [], list(cases)
    for i, size in enumerate(shard_sizes):
        name = f"cases-{i:05d}-of-{len(shard_sizes):05d}.array_record"
        here, rest = rest[:size], rest[size:]
        write_shard(directory / name, [to_bytes(case) for case in here])
        content = (directory / name).read_bytes()
        shards.append(
            {
                "file": name,
                "records": size,
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
        "settings": {},
        "shards": shards,
        "cases": entries,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "splits.json").write_text(
        json.dumps({"version": 1, "seed": 0, "splits": splits})
    )
    return directory


@pytest.fixture(scope="session")
def made_cases():
    """Seven cases of different shapes, smaller and larger than the crops of tests."""
    shapes = [(6, 9, 8), (5, 7, 11), (9, 6, 6), (3, 8, 9), (7, 7, 7), (6, 5, 10)]
    shapes.append((12, 12, 12))
    return [make_case(f"case_{i}", shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.fixture
def prepared(tmp_path, made_cases):
    """The seven cases in three shards, with one split."""
    ids = [case.case_id for case in made_cases]
    split = {"train": ids[:4], "validation": ids[4:5], "test": ids[5:]}
    return write_dataset(tmp_path / "prepared", made_cases, [3, 2, 2], {"80_20": split})
