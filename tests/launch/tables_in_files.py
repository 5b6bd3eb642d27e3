"""Rows of a table as training and evaluation leave them, written without either."""

import json
import zlib

import numpy as np

from attunet_jax.data.dataset import open_dataset
from launch.tables import __main__ as program
from launch.tables.rows import rows_of

STEPS = 12


def run(words):
    """Calls the program in this process."""
    program.main(program.FLAGS.parse([str(word) for word in words]))


def rows(words, requested, seeds=1):
    values = program.FLAGS.parse([str(word) for word in words])
    return rows_of(
        values.table, values, requested=requested, seeds=seeds, sources=values.sources
    )


def write_training(row, data):
    """What a finished training leaves, but for the numbers of its checkpoint."""
    (row.folder / "checkpoints" / str(STEPS)).mkdir(parents=True)
    dataset = open_dataset(data)
    run = {
        "config": json.loads(row.config.to_json()),
        "manifest_sha256": dataset.manifest_sha256,
        "split_sha256": dataset.split_sha256(row.split),
    }
    (row.folder / "config.json").write_text(json.dumps(run))


def write_evaluation(row, data, organs=("pancreas",), grid="prepared"):
    """Scores of every test case, by their place; returns the Dice of the cases."""
    dataset = open_dataset(data)
    parts = dataset.split(row.split)
    rng = np.random.default_rng(zlib.crc32(row.name.encode()))
    dice, lines = [], []
    for case_id in parts["test"]:
        for organ in organs:
            scores = dict.fromkeys(("precision", "recall", "iou"), 0.5)
            scores |= {"dice": float(rng.uniform()), "surface_distance_mm": 1.0}
            scores["grid"] = grid
            lines.append({"case_id": case_id, "organ": organ, **scores})
        dice.append(lines[-len(organs)]["dice"])
    record = {
        "format": "attunet_jax.evaluation",
        "version": 1,
        "workdir": str(row.trained),
        "step": STEPS,
        "newest_step": STEPS,
        "weights": "0123",
        "settings": json.loads(json.dumps(row.config.predict.to_dict())),
        "manifest_sha256": dataset.manifest_sha256,
        "split_sha256": dataset.split_sha256(row.split),
        "split": row.split,
        "part": "test",
        "train_cases": len(parts["train"]),
        "parameters": 1000,
        "inference": {"seconds": 0.25, "shape": [16, 24, 32], "device": "cpu"},
        "environment": {"commit": "abc"},
    }
    row.evaluation.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (row.evaluation / "cases.jsonl").write_text(text)
    (row.evaluation / "evaluation.json").write_text(json.dumps(record))
    return dice
