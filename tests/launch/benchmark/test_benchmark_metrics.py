"""The measurement of scores: a real peer on two small pairs, and the tables."""

import json

import numpy as np
import pytest

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.volume import write_nifti
from launch.benchmark import metrics
from launch.benchmark.metrics import to_markdown


def test_scores_in_a_peers_definition_equal_the_peers(tmp_path, capsys):
    pytest.importorskip("surface_distance")
    paths = {}
    for name, start in (("truth", 4), ("prediction", 6)):
        labels = np.zeros((20, 24, 28), np.uint8)
        labels[start : start + 9, 3:12, 5:20] = 1
        labels[3:18, 14:20, start + 3 : start + 12] = 2
        paths[name] = tmp_path / f"{name}.nii.gz"
        write_nifti(paths[name], labels, np.diag([-1.5, -0.8, 2.0, 1]))
    words = [f"--{name}={path}" for name, path in paths.items()]
    output = tmp_path / "all.json"
    more = ["--rounds=1", "--against=surface_distance", f"--output={output}"]
    metrics.main(metrics.FLAGS.parse([*words, *more]))
    document = json.loads(output.read_text())
    (pair,) = document["pairs"]
    assert pair["seconds"].keys() == {"ours", "surface_distance"}
    theirs = pair["scores"]["surface_distance"]
    assert theirs.keys() == {"1", "2"}
    for label, scores in pair["scores"]["ours, surface_distance"].items():
        assert scores == pytest.approx(theirs[label], rel=1e-12)
    assert capsys.readouterr().out.strip() == to_markdown(document).strip()

    with pytest.raises(BadArguments, match="--truth has 1 files and --prediction 2"):
        words[1] += f",{paths['truth']}"
        metrics.main(metrics.FLAGS.parse(words))
    write_nifti(tmp_path / "other.nii", np.ones((5, 5, 5), np.uint8), np.eye(4))
    with pytest.raises(BadData, match="other.nii: not on the grid of"):
        words[1] = f"--prediction={tmp_path / 'other.nii'}"
        metrics.main(metrics.FLAGS.parse(words))


def test_agreement_names_where_ours_are_not_within_two_percent():
    def scores(value: float) -> dict:
        return {"1": dict.fromkeys(metrics.COMPARED, value)}

    pairs = [
        {
            "truth": "t.nii.gz",
            "prediction": f"case{number}.nii.gz",
            "shape": [3, 4, 5],
            "seconds": {"ours": [1.0, 2.0, 2.0], "meshmetrics": [10.0, 10.0, 40.0]},
            "versions": {"pymeshmetrics": "1.4.1"},
            "scores": {
                "ours": scores(ours),
                "ours, surface_distance": scores(1.0),
                "meshmetrics": scores(1.0),
            },
        }
        for number, ours in ((1, 1.01), (2, 0.95))
    ]
    text = to_markdown({"date": "2026-11-28", "cores": 1, "pairs": pairs})
    assert "| case1.nii.gz | 5×4×3 | 1 | meshmetrics | 10.00 s | 0.100 |" in text
    assert "| hausdorff95_mm | 3.0% (5.0%) | 0.0% (0.0%) |" in text
    assert "- hausdorff95_mm: 1 of 2 within 2%; not case2 1 -5.0%" in text
