"""Definitions that outputs print, and which evaluations may be compared."""

import numpy as np

from attunet_jax.evaluate.definitions import METRICS, definitions_text
from attunet_jax.evaluate.metrics import measure_case
from attunet_jax.evaluate.scoring import scored_apart, scoring_text


def row(case_id="a", **changed):
    made = {"case_id": case_id, "organ": "spleen", "spacing_mm": [2, 1, 1]}
    return made | {"grid": "prepared", "definition": "mesh"} | changed


def test_every_score_of_a_row_has_one_line_of_definition():
    labels = np.ones((2, 2, 2), np.uint8)
    (measured,) = measure_case(labels, labels, (1, 1, 1), {"spleen": 1})
    assert METRICS.keys() <= measured.keys()
    lines = definitions_text(METRICS).splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == list(METRICS)
    assert all(m.definition and "\n" not in m.definition for m in METRICS.values())
    for name, metric in METRICS.items():
        assert name.endswith(f"_{metric.unit}".replace("%", "percent").rstrip("_")), (
            name
        )


def test_docs_define_each_score_as_the_outputs_do(check_generated):
    check_generated("evaluation.md", "metrics", definitions_text(METRICS))


def test_only_evaluations_of_one_grid_definition_and_spacing_compare():
    rows = [row("a"), row("b", spacing_mm=[3, 1, 1])]
    assert scored_apart(rows, rows[::-1]) is None
    assert scored_apart(rows, [row("a", spacing_mm=[2.0001, 1, 1])]) is None
    assert scored_apart(rows, [row("c", spacing_mm=[5, 5, 5])]) is None
    assert "--grid (prepared and scan)" in (
        scored_apart(rows, [row("a", grid="scan")]) or ""
    )
    assert "--definition" in (
        scored_apart(rows, [row("a", definition="surface_distance")]) or ""
    )
    apart = scored_apart(rows, [row("b", spacing_mm=[4, 1, 1])]) or ""
    assert "3x1x1 and 4x1x1 mm, b" in apart
    old = {"case_id": "a", "organ": "spleen"}  # as earlier versions wrote it
    assert scored_apart(rows, [old]) is None
    assert scored_apart([row(grid="scan")], [old])


def test_the_grid_that_was_scored_is_said_in_one_line():
    assert "prepared data" in scoring_text([row()])
    assert "own grid" in scoring_text([row(grid="scan")])
    assert "surface-distance" in scoring_text([row(definition="surface_distance")])
    assert len(scoring_text([row(), row(grid="scan")]).splitlines()) == 1
