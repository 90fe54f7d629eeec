"""The evaluation command: a checkpoint's predictions, scores and page, resumed, on several processes."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from chestx_jax.checkpoint import save_params
from chestx_jax.config import to_dict
from chestx_jax.data.reader import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.evaluate import evaluate
from chestx_jax.eval.judges.ratescore import rated, scores
from chestx_jax.eval.predictions.accuracy import outcomes
from chestx_jax.eval.predictions.records import Prediction, from_sample, read_predictions
from chestx_jax.eval.report.tables import task_rows
from chestx_jax.eval.statistics.breakdown import by_label, calibration
from chestx_jax.eval.statistics.scores import evaluate_predictions
from chestx_jax.export import export_model
from chestx_jax.inference.evaluate import model_name
from chestx_jax.inference.loaded_model import training_run
from chestx_jax.inference.multihost import missing_mask
from chestx_jax.inference.places import Place
from chestx_jax.lexicon import load
from chestx_jax.model.qwen_vl import init
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import train_tokenizer
from configs import eval as eval_config
from configs import rl
from tests.helpers import processes
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import tiny

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What training leaves: a tiny checkpoint with random weights as its stage `sft`, and the same in `hf`."""
    base = tmp_path_factory.mktemp("run")
    train_tokenizer(["The lungs are clear. Is there an effusion?"] * 5, base / "data" / "tokenizer", 295)
    config = tiny("qwen2_vl")
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(4))
    spec = ImageSpec(height=112, width=112)
    job = to_dict(JobConfig(init="random", model=config, image=spec, tokenizer="tokenizer"))
    (base / "config.json").write_text(json.dumps(job))
    save_params(base / "sft" / "params", params, to_dict(config))
    export_model(base / "hf", config, params, base / "data" / "tokenizer", spec)
    return base


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A file of five questions, each about a film of its own, one of which cannot be read."""
    base = tmp_path_factory.mktemp("asked")
    found = []
    for number in range(5):
        Image.fromarray(np.full((112, 112), 40 * number, np.uint8)).save(base / f"{number}.png")
        record = {"item_id": f"s{number}", "task": "binary", "question": YES_NO, "answer": "A"}
        evidence = {"reason_steps": ["There is edema."], "original_report": "Pulmonary edema."}
        found.append(record | evidence | {"image_path": [f"{number}.png"]})
    (base / "3.png").write_bytes(b"no film")
    (base / "test.jsonl").write_text("\n".join(map(json.dumps, found)))
    return base / "test.jsonl"


def test_a_checkpoint_is_evaluated_alone_and_on_two_processes(workdir, asked, tmp_path):
    command = [sys.executable, "-m", "chestx_jax.evaluate", "--config=configs/eval.py"]
    command += [f"--config.files=('{asked}',)", "--config.batch=2", "--config.length=8"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    environment = os.environ | {"XLA_FLAGS": ""}
    single = [*command, f"--model=hf:{workdir / 'hf'}", f"--out={alone}"]
    done = subprocess.run(single, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 3, done.stderr  # one is left out
    assert "record s3 skipped" in done.stdout
    first = read_predictions(alone / "predictions.jsonl")
    assert [p.sample_id for p in first] == ["s0", "s1", "s2", "s4"]
    assert all(p.truncated and p.tokens == 8 for p in first)
    assert (alone / "report.html").read_text().startswith("<!doctype html>")
    scores = json.loads((alone / "scores.json").read_text())
    (name,) = scores["models"]
    assert scores["run"].items() >= {"asked": 5, "answered": {name: 4}, "complete": False}.items()

    together.mkdir()  # two processes go on where another was killed; the checkpoint needs no word on its tokenizer
    written = (alone / "predictions.jsonl").read_text().splitlines()
    lines = [json.loads(line) | {"model": f"{workdir.name}/sft"} for line in written]
    (together / "predictions.jsonl").write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1])[:20])
    joined = [*command, f"--model=orbax:{workdir / 'sft' / 'params'}", f"--out={together}", "--distributed"]
    processes.run(joined, (3, 0), cwd=ROOT)
    same = [replace(p, probability=None, model="") for p in read_predictions(together / "predictions.jsonl")]
    assert same == [replace(p, probability=None, model="") for p in first]
    again = json.loads((together / "scores.json").read_text())
    ((again_name, model),) = again["models"].items()
    assert model["tasks"] == scores["models"][name]["tasks"]
    assert again["run"].items() >= {"asked": 5, "answered": {again_name: 4}, "complete": False}.items()


def test_a_full_disk_ends_with_a_table_and_is_gone_on_from(asked, tmp_path):
    config = EvalConfig(files=(str(asked),))
    samples = read_samples(asked)

    def fills(missing):
        yield from_sample(missing[0], "<answer> A </answer>")
        raise OSError(errno.ENOSPC, "No space left on device")

    said: list[str] = []
    with pytest.raises(OSError, match="No space"):
        evaluate(config, samples, "m", fills, tmp_path, load(), said.append)
    assert any("binary" in text and "100.0" in text for text in said)
    assert any("1 of 5 samples answered (interrupted" in text for text in said)
    handed: list[str] = []

    def rest(missing):
        handed.extend(sample.id for sample in missing)
        return (from_sample(sample, "<answer> B </answer>") for sample in missing)

    document = evaluate(config, samples, "m", rest, tmp_path, load(), said.append)
    assert handed == [sample.id for sample in samples[1:]]
    assert document["run"]["complete"]


def test_the_run_that_a_checkpoint_comes_from(workdir, tmp_path):
    run = training_run(Place("orbax", workdir / "sft" / "params"))
    assert run is not None
    assert run.tokenizer == workdir / "data" / "tokenizer"
    assert (run.image.height, run.image.width) == (112, 112)
    assert training_run(Place("orbax", tmp_path / "sft" / "params")) is None
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')  # somebody else's
    assert training_run(Place("orbax", tmp_path / "sft" / "params")) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        training_run(Place("orbax", tmp_path / "sft" / "params"))


def test_who_is_asked():
    samples = [Sample(f"s{n}", "binary", YES_NO, "A", (), (), (), "x") for n in (0, 1, 2, 1)]
    assert missing_mask(samples, samples[1:2]).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai:org/m@http://h/v1", "org/m"),
        ("hf:Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
        ("orbax:runs/phantom/sft/params", "phantom/sft"),
        ("orbax:/data/runs/phantom/grpo/params/", "phantom/grpo"),
    ],
)
def test_what_tables_call_a_model(model, name):
    assert model_name(model) == name


def test_the_phantom_preset_asks_what_the_phantom_job_tests():
    config, job = (get_config("phantom") for get_config in (eval_config.get_config, rl.get_config))
    assert "--workdir=runs/phantom" in (ROOT / "README.md").read_text()
    data = Path("runs/phantom/data")  # where a job without a data root keeps its data
    assert job.data_root == ""
    assert [Path(file) for file in config.files] == [data / job.evaluation.source.path]
    assert Path(config.train) in [data / source["path"] for source in job.init.sources]
    assert config.length >= job.evaluation.length


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
    found = evaluate_predictions(OPEN_ANSWERS, load(), ratescores=rated(OPEN_ANSWERS, pytest.fail))
    assert found.mean("anomaly", "ratescore") == 0.5
    assert found.mean("binary", "ratescore") is None
    assert "RaTEScore" in task_rows({"model": found})[0]
    package(monkeypatch, None)
    without = evaluate_predictions(OPEN_ANSWERS, load(), ratescores=rated(OPEN_ANSWERS, pytest.fail))
    assert "RaTEScore" not in task_rows({"model": without})[0]
    assert "label F1" in task_rows({"model": without})[0]


def test_ratescore_without_its_weights_is_said_and_left_out(monkeypatch):
    def lost(use_gpu):
        raise OSError("no such weights\nmore")

    said: list[str] = []
    package(monkeypatch, lost)
    assert rated(OPEN_ANSWERS, said.append) == [None] * 4
    assert "no such weights" in said[0]
    assert rated(OPEN_ANSWERS[1:2], pytest.fail) == [None]  # nothing open: the package is not even loaded
