"""RaTEScore of open answers, where the package and its weights are installed."""

import sys
from types import SimpleNamespace

import pytest

from chestx_jax.eval.judges.ratescore import rated, scores
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import task_rows
from chestx_jax.eval.statistics.scores import evaluate_predictions
from chestx_jax.lexicon import load


def prediction(task, question, gold, text):
    return Prediction("x", task, "phantom", question, gold, text)


YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
OPEN_ANSWERS = [
    prediction("anomaly", "Which findings?", "pleural effusion", "<answer> effusion </answer>"),
    prediction("binary", YES_NO, "A", "<answer> A </answer>"),
    prediction("anomaly", "Which findings?", "edema", ""),
    prediction("anomaly", "Which findings?", "edema", "There is edema"),
]


class Scorer:
    """Stands for the package: the share of the gold's words that the answer has."""

    def __init__(self, use_gpu=True):
        if use_gpu:
            raise AssertionError("Torch not compiled with CUDA enabled")

    def compute_score(self, given, gold):
        return [len(set(a.split()) & set(b.split())) / len(b.split()) for a, b in zip(given, gold, strict=True)]


def test_ratescore_scores_open_answers_only():
    assert scores(OPEN_ANSWERS, Scorer(use_gpu=False)) == [0.5, None, 0.0, 1.0]


def package(monkeypatch, scorer):
    """Puts `scorer` where the package is imported from; None: not installed."""
    monkeypatch.setitem(sys.modules, "RaTEScore", scorer and SimpleNamespace(RaTEScore=scorer))


def test_ratescore_is_in_the_tables_where_it_is_installed(monkeypatch):
    package(monkeypatch, Scorer)
    evaluation = evaluate_predictions(OPEN_ANSWERS, load(), ratescores=rated(OPEN_ANSWERS, pytest.fail))
    assert evaluation.mean("anomaly", "ratescore") == 0.5
    assert evaluation.mean("binary", "ratescore") is None
    assert "RaTEScore" in task_rows({"model": evaluation})[0]
    package(monkeypatch, None)
    without = evaluate_predictions(OPEN_ANSWERS, load(), ratescores=rated(OPEN_ANSWERS, pytest.fail))
    assert "RaTEScore" not in task_rows({"model": without})[0]
    assert "label F1" in task_rows({"model": without})[0]


def test_ratescore_without_its_weights_is_said_and_left_out(monkeypatch):
    def lost(use_gpu):
        raise OSError("no such weights\nmore")

    messages: list[str] = []
    package(monkeypatch, lost)
    assert rated(OPEN_ANSWERS, messages.append) == [None] * 4
    assert "no such weights" in messages[0]
    assert rated(OPEN_ANSWERS[1:2], pytest.fail) == [None]  # nothing open: the package is not even loaded
