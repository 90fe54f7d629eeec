"""A checkpoint through the evaluation door: predictions, scores and page, resumed, blind, with probabilities."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from tiny_models import tiny

from chestx_jax.eval.accuracy import outcomes
from chestx_jax.eval.breakdown import by_label, calibration
from chestx_jax.eval.ratescore import rated, scores
from chestx_jax.eval.records import Prediction, read_predictions
from chestx_jax.eval.scores import evaluate_predictions
from chestx_jax.eval.tables import comparison_table
from chestx_jax.export import export_model
from chestx_jax.lexicon import load
from chestx_jax.loops.predict import answer_probability
from chestx_jax.model.qwen_vl import init
from chestx_jax.tokens.image import ImageSpec
from chestx_jax.tokens.tokenizer import train_tokenizer

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A complete tiny checkpoint with random weights."""
    base = tmp_path_factory.mktemp("evaluated")
    train_tokenizer(["The lungs are clear. Is there an effusion?"] * 5, base / "tokenizer", 295)
    config = tiny("qwen2_vl")
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(4))
    spec = ImageSpec(height=None, width=None, min_pixels=3136, max_pixels=12_544)
    export_model(base / "model", config, params, base / "tokenizer", spec)
    return base / "model"


def test_a_checkpoint_through_the_door(model, tmp_path):
    found = []
    for number in range(5):
        Image.fromarray(np.full((112, 112), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
        record = {"item_id": f"s{number}", "task": "binary", "question": YES_NO, "answer": "A"}
        evidence = {"reason_steps": ["There is edema."], "original_report": "Pulmonary edema."}
        found.append(record | evidence | {"image_path": [f"{number}.png"]})
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, found)))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "chestx_jax.evaluate", "--config=configs/eval.py"]
    command += [f"--model=hf:{model}", f"--out={out}"]
    command += [f"--config.files=('{tmp_path / 'test.jsonl'}',)", "--config.batch=2", "--config.length=8"]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    first = read_predictions(out / "predictions.jsonl")
    assert [p.sample_id for p in first] == [f"s{n}" for n in range(5)]
    assert all(p.truncated and p.tokens == 8 for p in first)
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert read_predictions(out / "predictions.jsonl") == first
    scores = json.loads((out / "scores.json").read_text())
    assert (scores["asked"], scores["answered"], scores["complete"]) == (5, 5, True)
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_the_answer_s_probability_is_that_of_its_tokens():
    pieces = ["<think>", " so <answer>B", "</answer></think>", "<answer>", " A", " </", "answer>"]
    logprobs = np.log(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], np.float32))
    assert answer_probability(pieces, logprobs) == pytest.approx(0.5 * 0.4)  # " </" carries the blank before the tag
    assert answer_probability(["A"], logprobs[:1]) is None
    assert answer_probability(["<answer>", "</answer>"], logprobs[:2]) is None


def prediction(task, question, gold, text, probability=None):
    return Prediction("x", task, "phantom", question, gold, text, probability=probability)


def test_labels_and_calibration():
    found = [
        prediction("binary", YES_NO, "A", "<answer>A</answer>", 0.9),
        prediction("binary", YES_NO, "B", "<answer>A</answer>", 0.6),
        prediction("binary", YES_NO, "B", "I'm sorry, I cannot tell."),
        prediction("anomaly", "Which findings?", "Edema, Fracture", "<answer>Edema, Pneumonia</answer>"),
    ]
    rows = by_label(found, outcomes(found))
    assert rows["Edema"] == {
        "asked": 3, "sensitivity": 1.0, "specificity": 0.0, "named": 1, "recall": 1.0, "precision": 1.0,
    }  # fmt: skip
    assert (rows["Fracture"]["recall"], rows["Fracture"]["precision"]) == (0.0, None)
    known = calibration(found, outcomes(found))
    assert known["n"] == 2
    assert known["brier"] == pytest.approx((0.1**2 + 0.6**2) / 2)
    assert known["expected_error"] == pytest.approx((0.1 + 0.6) / 2)
    assert calibration(found[2:], outcomes(found[2:])) is None


class Scorer:
    """Stands for the package: the share of the gold's words that the answer has."""

    def __init__(self, use_gpu=True):
        if use_gpu:
            raise AssertionError("Torch not compiled with CUDA enabled")

    def compute_score(self, given, gold):
        return [len(set(a.split()) & set(b.split())) / len(b.split()) for a, b in zip(given, gold, strict=True)]


OPEN_ANSWERS = [
    prediction("anomaly", "Which findings?", "pleural effusion", "<answer> effusion </answer>"),
    prediction("binary", YES_NO, "A", "<answer> A </answer>"),
    prediction("anomaly", "Which findings?", "edema", ""),
    prediction("anomaly", "Which findings?", "edema", "There is edema"),
]


def test_ratescore_scores_open_answers_only():
    assert scores(OPEN_ANSWERS, Scorer(use_gpu=False)) == [0.5, None, 0.0, 1.0]


def package(monkeypatch, scorer):
    """Puts `scorer` where the package is imported from; None: not installed."""
    monkeypatch.setitem(sys.modules, "RaTEScore", scorer and SimpleNamespace(RaTEScore=scorer))


def test_ratescore_is_in_the_tables_where_it_is_installed(monkeypatch):
    package(monkeypatch, Scorer)
    found = evaluate_predictions(OPEN_ANSWERS, load(), rates=rated(OPEN_ANSWERS, pytest.fail))
    assert found.mean("anomaly", "ratescore") == 0.5
    assert found.mean("binary", "ratescore") is None
    assert "RaTEScore" in comparison_table({"model": found})
    package(monkeypatch, None)
    without = evaluate_predictions(OPEN_ANSWERS, load(), rates=rated(OPEN_ANSWERS, pytest.fail))
    assert "RaTEScore" not in comparison_table({"model": without})
    assert "label F1" in comparison_table({"model": without})


def test_ratescore_without_its_weights_is_said_and_left_out(monkeypatch):
    def lost(use_gpu):
        raise OSError("no such weights\nmore")

    said: list[str] = []
    package(monkeypatch, lost)
    assert rated(OPEN_ANSWERS, said.append) == [None] * 4
    assert "no such weights" in said[0]
    assert rated(OPEN_ANSWERS[1:2], pytest.fail) == [None]  # nothing open: the package is not even loaded
