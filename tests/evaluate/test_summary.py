"""Means and deviations that can be worked out by hand."""

import pytest

from attunet_jax.evaluate.summary import markdown_summary, summary

ROWS = [
    {"case_id": "a", "organ": "spleen", "dice": 0.5, "surface_distance_mm": 2.0},
    {"case_id": "a", "organ": "pancreas", "dice": 0.0, "surface_distance_mm": None},
    {"case_id": "b", "organ": "spleen", "dice": 0.7, "surface_distance_mm": None},
    {"case_id": "b", "organ": "pancreas", "dice": 0.0, "surface_distance_mm": None},
]
METRICS = ("dice", "surface_distance_mm")


def test_the_deviation_is_the_population_s():
    spread = summary(ROWS, METRICS)["spleen"]["dice"]
    assert spread == {"mean": 0.6, "std": pytest.approx(0.1), "n": 2, "undefined": 0}


def test_undefined_scores_are_left_out_and_counted():
    numbers = summary(ROWS, METRICS)
    assert list(numbers) == ["spleen", "pancreas"]
    assert numbers["spleen"]["surface_distance_mm"] == {
        "mean": 2.0,
        "std": 0.0,
        "n": 1,
        "undefined": 1,
    }
    assert numbers["pancreas"]["surface_distance_mm"] == {
        "mean": None,
        "std": None,
        "n": 0,
        "undefined": 2,
    }
    assert numbers["pancreas"]["dice"]["mean"] == 0


def test_a_metric_that_no_row_has_is_undefined():
    assert summary(ROWS)["spleen"]["recall"]["undefined"] == 2
    assert summary([]) == {}


def test_the_summary_as_text():
    assert markdown_summary(summary(ROWS, METRICS)) == (
        "| organ | dice | surface_distance_mm |\n"
        "| --- | --- | --- |\n"
        "| spleen | 0.600 ± 0.100 | 2.000 ± 0.000 (n=1 of 2) |\n"
        "| pancreas | 0.000 ± 0.000 | - |\n"
    )
