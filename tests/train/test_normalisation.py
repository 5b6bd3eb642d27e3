"""Whose voxels normalise a run: those of its training cases, its source, each scan."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.intensity import HuHistogram
from attunet_jax.train.normalisation import run_normalisation
from attunet_jax.train.setup import as_begun
from configs import base, paper

HU = {
    "a": np.arange(-50, 150),
    "b": np.arange(100, 300),
    "test": np.arange(-1000, 0),
    "none": np.zeros(0, int),
}


def dataset(**changed: Any) -> Dataset:
    cases = [
        {"case_id": i, "labelled_hu": HuHistogram.of(hu.astype(np.int16)).as_json()}
        for i, hu in (HU | changed).items()
    ]
    return Dataset(Path("DATA"), {"cases": cases}, {}, "")


def source(**run: Any) -> Any:
    return SimpleNamespace(run=run, workdir=Path("SOURCE"))


def test_a_run_takes_the_percentiles_mean_and_deviation_of_its_training_cases():
    config = base.get_config()
    found = run_normalisation(config, dataset(), ("a", "b", "none"), None)
    assert found is not None
    every = np.concatenate([HU["a"], HU["b"]])
    low, high = np.rint(np.percentile(every, [0.5, 99.5]))
    clipped = every.clip(low, high)
    assert (found.low_hu, found.high_hu) == (low, high)
    assert found.mean_hu == pytest.approx(clipped.mean())
    assert found.std_hu == pytest.approx(clipped.std())
    # Whatever a test case holds.
    other = dataset(test=np.arange(2000, 3000))
    assert run_normalisation(config, other, ("b", "a"), None) == found


def test_without_counts_or_labelled_voxels_the_remedies_are_named_in_one_line():
    config = base.get_config()
    before = dataset()
    del before.manifest["cases"][1]["labelled_hu"]
    for data, ids, said in (
        (before, ("a", "b"), "prepare the scans again"),
        (dataset(), ("none",), "nothing is labelled in the 1 training cases"),
        (dataset(a=np.full(9, 7)), ("a",), "all have 7 HU"),
    ):
        with pytest.raises(BadData) as caught:
            run_normalisation(config, data, ids, None)
        line = str(caught.value)
        assert line.startswith("DATA: ") and "\n" not in line and said in line
        assert "--config.data.normalisation=scan" in line
        config.data.normalisation = "scan"
        assert run_normalisation(config, data, ids, None) is None
        config.data.normalisation = "ct"


def test_the_paper_normalises_each_scan_by_itself():
    assert run_normalisation(paper.get_config(), dataset(), ("a", "b"), None) is None


def test_a_fine_tuning_is_normalised_as_its_source():
    numbers = {"low_hu": -7, "high_hu": 70, "mean_hu": 31.5, "std_hu": 9.25}
    for normalisation in ("ct", "scan"):
        config = base.get_config()
        config.data.normalisation = normalisation
        found = run_normalisation(
            config, dataset(), ("a",), source(normalisation=numbers)
        )
        assert found is not None and found.as_json() == numbers
        # A run from before there was a choice.
        assert run_normalisation(config, dataset(), ("a",), source()) is None


def test_statistics_of_the_window_contradict_the_numbers_of_a_run():
    config = base.get_config()
    config.augment.normalise_over = "window"
    with pytest.raises(BadArguments, match="--config.data.normalisation=scan"):
        run_normalisation(config, dataset(), ("a",), None)
    config.data.normalisation = "scan"
    assert run_normalisation(config, dataset(), ("a",), None) is None
    numbers = {"low_hu": -7, "high_hu": 70, "mean_hu": 31.5, "std_hu": 9.25}
    with pytest.raises(BadArguments, match="--config.augment.normalise_over=case"):
        run_normalisation(config, dataset(), ("a",), source(normalisation=numbers))


def test_a_run_begun_before_there_was_a_choice_goes_on_without_one(tmp_path):
    config = base.get_config()
    config.train.steps = 7
    stored = json.loads(config.to_json())
    (tmp_path / "config.json").write_text(json.dumps({"config": stored}))
    assert as_begun(config, tmp_path) == (config, [])  # no checkpoint: a new run
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    assert as_begun(config, tmp_path) == (config, [])
    del stored["data"]["normalisation"], stored["predict"]["spatial"]
    (tmp_path / "config.json").write_text(json.dumps({"config": stored}))
    found, (line,) = as_begun(config, tmp_path)
    assert found.data.normalisation == "scan" and found.train.steps == 7
    assert str(tmp_path) in line and "config.data.normalisation" in line
    assert config.data.normalisation == "ct"  # the caller's own is left alone
    config.data.normalisation = "scan"
    assert as_begun(config, tmp_path) == (config, [])
    for broken in ("", "[]", "{}", '{"config": 3}'):
        (tmp_path / "config.json").write_text(broken)
        assert as_begun(config, tmp_path) == (config, [])
