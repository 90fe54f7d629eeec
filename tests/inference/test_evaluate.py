"""The evaluation command: a checkpoint's predictions, scores and page, resumed, on several processes."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from chestx_jax.checkpoint import save_params
from chestx_jax.config import to_dict
from chestx_jax.data.reader import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.evaluate import evaluate
from chestx_jax.eval.predictions.records import from_sample, read_predictions
from chestx_jax.export import export_model
from chestx_jax.inference.evaluate import model_name
from chestx_jax.inference.multihost import missing_mask
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
    spec = ImageSpec(aspect="squash", height=112, width=112)
    job = to_dict(JobConfig(init="random", model=config, image=spec, tokenizer="tokenizer"))
    (base / "config.json").write_text(json.dumps(job))
    save_params(base / "sft" / "params", params, to_dict(config))
    export_model(base / "hf", config, params, base / "data" / "tokenizer", spec)
    return base


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A file of five questions, each about a film of its own, one of which cannot be read."""
    base = tmp_path_factory.mktemp("records")
    lines = []
    for number in range(5):
        Image.fromarray(np.full((112, 112), 40 * number, np.uint8)).save(base / f"{number}.png")
        record = {"item_id": f"s{number}", "task": "binary", "question": YES_NO, "answer": "A"}
        evidence = {"reason_steps": ["There is edema."], "original_report": "Pulmonary edema."}
        lines.append(record | evidence | {"image_path": [f"{number}.png"]})
    (base / "3.png").write_bytes(b"no film")
    (base / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return base / "test.jsonl"


def test_a_checkpoint_is_evaluated_alone_and_on_two_processes(workdir, records, tmp_path):
    command = [sys.executable, "-m", "chestx_jax.evaluate", "--config=configs/eval.py"]
    command += [f"--config.files=('{records}',)", "--config.batch=2", "--config.length=8"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    environment = os.environ | {"XLA_FLAGS": ""}
    single = [*command, f"--model=hf:{workdir / 'hf'}", f"--out={alone}"]
    done = subprocess.run(single, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 3, done.stderr  # one is left out
    assert re.search(r"record s3 \(.*, record 3\) skipped", done.stdout)
    first = read_predictions(alone / "predictions.jsonl")
    assert [p.sample_id for p in first] == ["s0", "s1", "s2", "s4"]
    assert all(p.truncated and p.tokens == 8 for p in first)
    assert (alone / "report.html").read_text().startswith("<!doctype html>")
    scores = json.loads((alone / "scores.json").read_text())
    (name,) = scores["models"]
    assert scores["run"].items() >= {"asked": 5, "answered": {name: 4}, "complete": False}.items()

    together.mkdir()  # two processes resume where another was killed; the checkpoint finds its tokenizer in the run
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


def test_a_full_disk_ends_with_a_table_and_is_resumed(records, tmp_path):
    config = EvalConfig(files=(str(records),))
    samples = read_samples(records)

    def fills_the_disk(missing):
        yield from_sample(missing[0], "<answer> A </answer>")
        raise OSError(errno.ENOSPC, "No space left on device")

    messages: list[str] = []
    with pytest.raises(OSError, match="No space"):
        evaluate(config, samples, "m", fills_the_disk, tmp_path, load(), messages.append)
    assert any("binary" in text and "100.0" in text for text in messages)
    assert any("1 of 5 samples answered (interrupted" in text for text in messages)
    missing_ids: list[str] = []

    def rest(missing):
        missing_ids.extend(sample.id for sample in missing)
        return (from_sample(sample, "<answer> B </answer>") for sample in missing)

    document = evaluate(config, samples, "m", rest, tmp_path, load(), messages.append)
    assert missing_ids == [sample.id for sample in samples[1:]]
    assert document["run"]["complete"]


def test_the_mask_of_missing_samples():
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


def test_the_phantom_preset_evaluates_what_the_phantom_job_tests():
    config, job = (get_config("phantom") for get_config in (eval_config.get_config, rl.get_config))
    assert "--workdir=runs/phantom" in (ROOT / "README.md").read_text()
    data = Path("runs/phantom/data")  # where a job without a data root keeps its data
    assert job.data_root == ""
    assert [Path(file) for file in config.files] == [data / job.evaluation.source.path]
    assert Path(config.train) in [data / source["path"] for source in job.init.sources]
    assert config.length >= job.evaluation.length
