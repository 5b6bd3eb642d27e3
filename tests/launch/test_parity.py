"""`launch.parity`: our network computes what the authors' code did; its verdict."""

import math

import jax
import numpy as np
import pytest

from attunet_jax.errors import BadData
from launch import parity


@pytest.fixture
def quick_to_compile():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_our_network_computes_what_the_authors_did(shared, quick_to_compile):
    file = shared / "golden" / "published_multi_att_align1.npz"
    errors = parity.errors(file, "float64")
    assert len([e for e in errors if e.quantity == "alpha"]) == 6
    assert {e.quantity for e in errors} == parity.TOLERANCES.keys()
    for quantity, where, error in errors:
        # In float64 what is left is the float32 in which the file stores arrays.
        assert error < min(parity.TOLERANCES[quantity], 1e-6), where


def test_the_verdict_is_that_of_float64(tmp_path, monkeypatch, capsys):
    (tmp_path / "published_dsv_align0.npz").touch()
    rows = [
        parity.Row("gradient", "grad:conv1", error=5e-5, float32_error=1e-2),
        parity.Row("loss", "train_dice_loss", error=1e-7, float32_error=1e-7),
    ]
    monkeypatch.setattr(parity, "compare", lambda file: rows)
    assert parity.main([f"--golden={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "TOO LARGE" not in printed and "1.00e-02" in printed
    rows[1] = parity.Row("loss", "train_dice_loss", error=3e-6, float32_error=1e-7)
    with pytest.raises(BadData, match="align0.npz: loss of .*_loss is off by 3 times"):
        parity.main([f"--golden={tmp_path}"])
    assert capsys.readouterr().out.count("TOO LARGE") == 1
    with pytest.raises(BadData, match="no published_"):
        parity.main([f"--golden={tmp_path / 'nowhere'}"])


def test_nan_is_the_largest_error_of_all():
    golden = {"eval_logits": np.ones((1, 2)), "train_logits": np.ones((1, 2))}
    golden |= {"train_dice_loss": np.ones(())}
    golden |= {"after:a": np.ones(3), "after:b": np.ones(3)}
    for nan in "after:a", "after:b":
        ours = golden | {nan: np.full(3, np.nan)}
        *_, (quantity, where, error) = parity.worst_errors(ours, golden)
        assert (quantity, where, error) == ("running statistics", nan, math.inf)
