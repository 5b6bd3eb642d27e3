"""Label values: stored, and as positions in a list of classes."""

import numpy as np

from attunet_jax.data.labels import LabelMap

LABELS = LabelMap({"spleen": 2, "kidney": 5, "liver": 1})
CLASSES = ("background", "liver", "pancreas", "kidney")


def test_organs_are_numbered_from_1_in_their_order():
    numbered = LabelMap.numbered(["kidney", "spleen"])
    assert numbered.values == {"kidney": 1, "spleen": 2}
    assert numbered.organs == ("kidney", "spleen")


def test_voxels_to_ignore_stay_so_whatever_the_classes_are():
    labels = LabelMap(LABELS.values, ignore_value=255)
    assert labels.lookup(CLASSES) == (0, 1, 0, 0, 0, 3, *[0] * 249, 255)
    stored = np.array([255, 5, 0, 2], np.uint8)
    assert labels.relabel(stored, CLASSES).tolist() == [255, 3, 0, 0]


def test_outputs_that_were_not_trained_have_no_value():
    outputs = ("background", "spleen", "pancreas", "kidney")
    tuned = LabelMap.of_outputs(outputs, ["background", "kidney", "spleen"])
    assert tuned.values == {"spleen": 1, "kidney": 3}


def test_stored_values_become_positions_and_unnamed_organs_background():
    assert LABELS.lookup(CLASSES) == (0, 1, 0, 0, 0, 3)
    stored = np.array([[0, 1, 2], [5, 5, 0]], np.uint8)
    relabelled = LABELS.relabel(stored, CLASSES)
    assert (
        relabelled.tolist() == [[0, 1, 0], [3, 3, 0]] and relabelled.dtype == np.uint8
    )
