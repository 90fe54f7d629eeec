"""Ten thousand broken records and judge replies, 200 mutated files and answers: none crashes, each is accounted for."""

import json

import numpy as np
import pytest

from chestx_jax.endpoint.structured import parse_json
from chestx_jax.eval.judges.judgements import aggregate
from chestx_jax.eval.predictions.records import read_good_predictions
from chestx_jax.eval.score_files import score_file
from tests.benchmarks import fuzz_answers, fuzz_records
from tests.helpers.fuzz import TRACEBACK, count_outcomes

COUNT = 10_000
QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "</script>", "{", "\x00", "\u2028", "\U0001f600")
WORDS = (
    " A ",
    "<answer> A </answer>",
    "(B)",
    "A) Yes",
    "**B)**",
    "the answer is A",
    "If seen, A",
    "I'm sorry",
    "No effusion.",
    QUESTION,
)
PIECES = (*TAGS, *WORDS, "\nassistant\n", "system\nYou help.\nuser\n")
VALUES = (None, True, -1, 0, 3, 2.5, float("nan"), float("inf"), "", "Error", "3", [], ["a"], [None], {}, {"x": 1})


def prediction(rng):
    """A sound record with some fields missing, mangled or of another type."""
    text = "".join(rng.choice(PIECES, rng.integers(0, 8)))
    record = {"question": QUESTION, "answer": "<answer> A </answer>", "pred": text, "item_id": "1"}
    for field in rng.choice([*record, "reason_steps", "original_report", "image_path"], rng.integers(0, 3)):
        record[str(field)] = VALUES[rng.integers(len(VALUES))]
    for field in rng.choice(list(record), rng.integers(0, 2)):
        record.pop(str(field), None)
    return record if rng.random() < 0.97 else VALUES[rng.integers(len(VALUES))]


def judgement(rng):
    """A sound judged record with some replies missing, mangled or of another type."""
    names = ("recalled_count", "correct_count", "effective_count", "ineffective_count")
    counts = {name: int(rng.integers(0, 4)) for name in names}
    seen = {"key_conclusion": [{"observation": "edema", "status": "present"}] * int(rng.integers(0, 4))}
    record = {"correct": "yes", "gt_key_finding": seen, "pred_key_finding": dict(seen)}
    record |= {"recall_res": dict(counts), "precision_res": dict(counts), "efficiency": dict(counts)}
    for field in rng.choice(list(record), rng.integers(0, 3)):
        reply = record[str(field)]
        value = VALUES[rng.integers(len(VALUES))]
        if isinstance(reply, dict) and reply and rng.random() < 0.7:
            reply[str(rng.choice(list(reply)))] = value
        else:
            record[str(field)] = value
    return record if rng.random() < 0.97 else VALUES[rng.integers(len(VALUES))]


def test_predictions(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "ours.jsonl"
    path.write_text("\n".join(json.dumps(prediction(rng)) for _ in range(COUNT)))
    for rule, family in (("strict", "auto"), ("official", "ours"), ("official", "qwen"), ("official", "chexagent")):
        score = score_file(path, rule, family)
        assert score["n"] == COUNT == score["n_valid"] + score["unparsed"]
        assert 0 < score["n_correct"] <= score["n_valid"]
        assert sum(score["reasons"].values()) == score["unparsed"]
    predictions, problems = read_good_predictions(path)
    assert len(predictions) + len(problems) == COUNT
    assert all("record" in problem and "field" in problem for problem in problems)


def test_judge_replies():
    rng = np.random.default_rng(1)
    records = [judgement(rng) for _ in range(COUNT)]
    for aggregation in ("official", "clean"):
        summed = aggregate(records, aggregation)
        assert summed["n"] == COUNT == summed["n_valid"] + summed["malformed"]
        assert sum(summed["problems"].values()) == summed["malformed"]
    clean = aggregate(records, "clean")
    assert 0 < clean["radrscore"] <= 1
    assert clean["n_valid"] > COUNT / 3


def test_json_in_any_prose():
    rng = np.random.default_rng(2)
    noise = ("Sure!", "```json\n", "{", "}", '"', "[", "\n", "{}", '{"other": 1}', "<html>")
    for _ in range(COUNT // 10):
        before, after = ("".join(rng.choice(noise, rng.integers(0, 6))) for _ in range(2))
        parsed = parse_json(before + json.dumps({"recalled_count": 2}) + after, ("recalled_count",))
        assert parsed is None or parsed == {"recalled_count": 2}
        if before.count('"') + before.count("{") + before.count("[") == 0:
            assert parsed == {"recalled_count": 2}


@pytest.mark.parametrize("fuzz", [fuzz_records, fuzz_answers])
def test_mutated_inputs(fuzz):
    outcomes = count_outcomes(fuzz.KINDS, fuzz.attempt, 200)
    assert not [outcome for outcome in outcomes if TRACEBACK in outcome[1]]
    assert outcomes.total() == 200
