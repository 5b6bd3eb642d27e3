"""Means and deviations that can be worked out by hand."""

import pytest

from attunet_jax.evaluate.summary import (
    markdown_summary,
    short_summary,
    spread_text,
    summary,
)

ROWS = [
    {"case_id": "a", "organ": "spleen", "dice": 0.5, "surface_distance_mm": 2.0},
    {"case_id": "a", "organ": "pancreas", "dice": None, "surface_distance_mm": None},
    {"case_id": "b", "organ": "spleen", "dice": 0.7, "surface_distance_mm": 4.0},
    {"case_id": "b", "organ": "pancreas", "dice": None, "surface_distance_mm": None},
]
MISSED = {
    "case_id": "c",
    "organ": "spleen",
    "dice": 0.0,
    "surface_distance_mm": None,
    "diagonal_mm": 300.0,
}
METRICS = ("dice", "surface_distance_mm")


def test_the_deviation_is_the_population_s_and_the_interval_student_s():
    spread = summary(ROWS, METRICS)["spleen"]["dice"]
    # 12.7062 * sqrt(0.02) / sqrt(2) around 0.6.
    assert spread == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(0.1),
        "low": pytest.approx(0.6 - 1.27062, abs=1e-5),
        "high": pytest.approx(0.6 + 1.27062, abs=1e-5),
        "n": 2,
        "undefined": 0,
        "penalised_mean": pytest.approx(0.6),
        "penalised": 0,
    }


def test_undefined_scores_are_left_out_and_counted():
    numbers = summary(ROWS, METRICS)
    assert list(numbers) == ["spleen", "pancreas"]
    # Neither map has it: nothing was missed.
    assert numbers["pancreas"]["surface_distance_mm"] == {
        **dict.fromkeys(("mean", "std", "low", "high", "penalised_mean")),
        "n": 0,
        "undefined": 2,
        "penalised": 0,
    }


def test_a_missed_organ_counts_with_the_diagonal_in_a_second_mean():
    spread = summary([*ROWS, MISSED], METRICS)["spleen"]["surface_distance_mm"]
    assert (spread["mean"], spread["n"], spread["undefined"]) == (3, 2, 1)
    assert (spread["penalised_mean"], spread["penalised"]) == (102, 1)
    text = spread_text(spread, "surface_distance_mm")
    assert text.endswith(", n=2, 1 undefined (102.000 with 1 missed)")
    # Rows of before have no diagonal.
    old = {key: value for key, value in MISSED.items() if key != "diagonal_mm"}
    spread = summary([*ROWS, old], METRICS)["spleen"]["surface_distance_mm"]
    assert (spread["penalised_mean"], spread["penalised"]) == (None, 1)
    assert "no penalty known" in spread_text(spread, "surface_distance_mm")


def test_a_metric_that_no_row_has_is_undefined():
    spread = summary(ROWS)["spleen"]["recall"]
    assert (spread["undefined"], spread["penalised"]) == (2, 0)
    assert summary([]) == {}


def test_the_summary_as_text_has_n_and_the_cases():
    rows = [*ROWS, MISSED]
    text = markdown_summary(summary(rows, METRICS), rows)
    lines = text.splitlines()
    assert "| spleen | surface_distance_mm | 3.000 ± 1.000 [-9.706, 15.706] |" in text
    assert lines[3].endswith("| 2 | 1 | 102.000 with 1 missed |")
    assert "| pancreas | dice | - | 0 | 2 |  |" in lines
    assert "Intervals are unreliable: n=2, fewer than 50 cases." in lines
    assert lines[-3:] == ["| a | 0.500 | - |", "| b | 0.700 | - |", "| c | 0.000 | - |"]


def test_enough_cases_make_an_interval_reliable():
    rows = [{"case_id": str(i), "organ": "liver", "dice": i / 100} for i in range(50)]
    assert "unreliable" not in markdown_summary(summary(rows, ["dice"]))
    assert "unreliable" in markdown_summary(summary(rows[1:], ["dice"]))


def test_a_terminal_gets_a_line_an_organ_and_n_where_fewer_cases_define_a_score():
    rows = [
        {"case_id": "a", "organ": "liver", "dice": 0.5, "hausdorff95_mm": 3.0},
        {"case_id": "b", "organ": "liver", "dice": 0.0, "hausdorff95_mm": None},
        {"case_id": "a", "organ": "spleen", "dice": None, "hausdorff95_mm": None},
    ]
    lines = short_summary(summary(rows, ("dice", "hausdorff95_mm"))).splitlines()
    assert lines[0].split() == ["organ", "n", "dice", "hausdorff95_mm"]
    assert lines[1].split("  ")[0] == "liver"
    assert "0.250 ± 0.250" in lines[1] and lines[1].endswith("3.000 ± 0.000 (n=1)")
    assert lines[2].split() == ["spleen", "0", "-", "-"]
