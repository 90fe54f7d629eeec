"""Scores by label, and how far the probabilities of answers can be believed."""

import pytest

from chestx_jax.eval.predictions.accuracy import outcome
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.statistics.breakdown import by_label, calibration

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"


def prediction(task, question, gold, text, probability=None):
    return Prediction("x", task, "phantom", question, gold, text, probability=probability)


def test_labels_and_calibration():
    predictions = [
        prediction("binary", YES_NO, "A", "<answer>A</answer>", 0.9),
        prediction("binary", YES_NO, "B", "<answer>A</answer>", 0.6),
        prediction("binary", YES_NO, "B", "I'm sorry, I cannot tell."),
        prediction("anomaly", "Which findings?", "Edema, Fracture", "<answer>Edema, Pneumonia</answer>"),
    ]
    rows = by_label(predictions, list(map(outcome, predictions)))
    balanced = rows["Edema"].pop("balanced_accuracy")
    assert (balanced["mean"], balanced["n"]) == (0.5, 3)
    assert rows["Edema"] == {
        "asked": 3, "sensitivity": 1.0, "specificity": 0.0, "named": 1, "recall": 1.0, "precision": 1.0,
    }  # fmt: skip
    assert rows["mean of labels"]["balanced_accuracy"] == balanced
    assert rows["Fracture"]["balanced_accuracy"] is None
    assert (rows["Fracture"]["recall"], rows["Fracture"]["precision"]) == (0.0, None)
    known = calibration(predictions, list(map(outcome, predictions)))
    assert known["n"] == 2
    assert known["brier"] == pytest.approx((0.1**2 + 0.6**2) / 2)
    assert known["expected_error"] == pytest.approx((0.1 + 0.6) / 2)
    assert calibration(predictions[2:], list(map(outcome, predictions[2:]))) is None
