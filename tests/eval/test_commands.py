"""The door's commands from outside: the JSON they promise, the published numbers, kills and bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.helpers.chat_server import serve
from tests.helpers.paths import ROOT

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"


def door(*arguments, **options):
    """Runs the command and returns the finished process."""
    command = [sys.executable, "-m", "chestx_jax.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


def document(folder, *arguments):
    """Runs the command with --json and returns what it wrote."""
    finished = door(*arguments, "--json", folder / "out.json")
    assert finished.returncode == 0, finished.stderr
    return json.loads((folder / "out.json").read_text())


# Accuracy over all records, percent: official rule, first strict rule, our strict rule. The last two differ for
# qwenvl7b, of whose answers 226 (SIIM) and 89 (RSNA) stand inside the think block alone, and for gpt4o: answers that
# ours leaves out only say how to answer ("if …, A; otherwise B"), and those it adds stand outside the closing 200
# characters or read "Option B (No)".
PUBLISHED = {
    "ours_process_final_150": {"siim": (83.67, 83.67, 83.67), "rsna": (79.33, 79.33, 79.33)},
    "chexagent3b": {"siim": (88.34, 88.34, 88.34), "rsna": (78.33, 78.33, 78.33)},
    "qwenvl72b": {"siim": (62.00, 62.00, 62.00), "rsna": (49.33, 49.33, 49.33)},
    "qwenvl7b": {"siim": (0.0, 50.33, 8.33), "rsna": (0.0, 55.67, 42.67)},
    "deepseek": {"siim": (None, 65.00, 65.00), "rsna": (None, 70.67, 70.67)},
    "gpt4o": {"siim": (None, 59.00, 58.33), "rsna": (None, 70.33, 69.00)},
}


def test_published_accuracies(shared_data, tmp_path):
    names = [(model, data) for model in PUBLISHED for data in ("siim", "rsna")]
    folder = shared_data / "radrbench_outputs" / "accuracy_res"
    paths = [folder / model / f"{data}_binary_test_option.json" for model, data in names]
    official = document(tmp_path, "--predictions", *paths, "--family", "auto", "--rule", "official")
    strict = document(tmp_path, "--predictions", *paths, "--rule", "strict")
    assert [file["file"] for file in official["files"]] == [str(path) for path in paths]
    for (model, data), by_official, by_strict in zip(names, official["files"], strict["files"], strict=True):
        expected, _, ours = PUBLISHED[model][data]
        if expected is None:
            assert by_official["accuracy"] is None
            assert by_official["reason"]
        else:
            assert 100 * by_official["accuracy"] == pytest.approx(expected, abs=0.01)
        assert 100 * by_strict["accuracy_all"] == pytest.approx(ours, abs=0.01)


def test_published_radrscores(shared_data, tmp_path):
    folder = shared_data / "radrbench_outputs" / "reasoning_res"
    ours, gpt4o = folder / "ours_process_final_150", folder / "gpt4o"
    names = ["openi_single", "openi_multi"]
    paths = [ours / f"{name}_evaluation_res.json" for name in names]
    paths += [gpt4o / f"{name}_evaluation_res.json" for name in [*names, "openi_multi_no_option"]]
    for aggregation, expected in (
        ("official", [57.58, 42.38, 55.04, 47.38, 38.02]),
        # The first is 56.98 without the clamp to 1: one reply calls 2 of 1 observations correct.
        ("clean", [56.88, 42.38, 55.03, 46.84, 38.02]),
    ):
        aggregated = document(tmp_path, "--judgements", *paths, "--aggregation", aggregation)
        scores = [100 * file["radrscore"] for file in aggregated["files"]]
        assert scores == pytest.approx(expected, abs=0.01)
        for file in aggregated["files"]:
            assert file["n_valid"] + file["malformed"] == file["n"]


def records(folder, count=6):
    """A file of predictions in the release's form, with its path."""
    path = folder / "ours_model" / "test.json"
    path.parent.mkdir()
    raw_records = [
        {
            "question": YES_NO,
            "answer": "<answer> A </answer>",
            "pred": f"<think> There is pulmonary edema. No pneumothorax. </think><answer> {'AB'[n % 2]} </answer>",
            "reason_steps": ["There is edema."],
            "original_report": "Pulmonary edema." if n else "",
            "item_id": f"item {n}",
        }
        for n in range(count)
    ]
    path.write_text(json.dumps([*raw_records, {**raw_records[1], "pred": "", "item_id": "empty"}]))
    return path


def test_accuracy_contract(tmp_path):
    scores = document(tmp_path, "--predictions", records(tmp_path), "--family", "auto", "--rule", "official")
    (file,) = scores["files"]
    assert (file["n"], file["n_valid"], file["n_correct"], file["unparsed"]) == (7, 6, 3, 1)
    assert (file["accuracy"], file["accuracy_all"]) == (0.5, 3 / 7)
    for part in ("macro", "micro"):
        assert {"n", "n_valid", "n_correct", "accuracy", "accuracy_all", "unparsed"} <= scores[part].keys()
    assert scores["macro"].keys() == scores["micro"].keys()


def test_offline_judge_contract(tmp_path):
    items = tmp_path / "items.jsonl"
    scores = document(tmp_path, "--predictions", records(tmp_path), "--judge", "rules", "--per_item", items)
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(7))
    assert [lines[0][term] for term in ("factuality", "completeness", "effectiveness")] == [None] * 3
    assert lines[1]["factuality"] == 1.0
    assert lines[1]["completeness"] == 1.0
    assert {"concept", "polarity", "certainty", "side", "step", "verdict"} <= lines[1]["findings"][0].keys()
    assert lines[6]["factuality"] == 0.0
    assert scores["files"][0]["scored"]["factuality"] == 6


def test_audit_contract(tmp_path):
    scores = document(tmp_path, "--audit", records(tmp_path, 40))
    (file,) = scores["files"]
    assert {"blind", "prior", "order", "tasks", "n"} <= file.keys()
    assert file["prior"] == 1.0  # every gold is A


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--predictions", "missing.json"], "missing.json does not exist"),
        (["--judgements", "pyproject.toml"], "pyproject.toml, line 1"),
        ([], "Give one of --config"),
        (["--predictions", "x", "--rule", "lax"], "--rule"),
        (["--predicitons", "x"], "did you mean --predictions"),
        (["--config=configs/eval.py", "--config.limt=3"], "did you mean config.limit"),
        (["--config=configs/eval.py"], "--model and --out"),
        (["--config=configs/eval.py", "--model=openai:x", "--out=/tmp/x"], "config.files is empty"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, output):
    finished = door(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.strip().count("\n") == 0
    assert output in finished.stderr


def sample_file(folder, count=24):
    """A file of samples with films."""
    sample_records = []
    for number in range(count):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(folder / f"{number}.png")
        record = {"item_id": f"s{number}", "task": "binary", "question": YES_NO, "answer": "A"}
        evidence = {"reason_steps": ["There is edema."], "original_report": "Pulmonary edema."}
        sample_records.append(record | evidence | {"image_path": [f"{number}.png"]})
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, sample_records)))
    return folder / "test.jsonl"


def faulty(body, before):
    """Every kind of fault once for some films, then an answer; slow enough to be killed in the middle."""
    film = len(body["messages"][0]["content"][0]["image_url"]["url"])
    time.sleep(0.05)
    fault = {0: 429, 1: 500, 2: "html", 3: "cut"}.get(film % 7)
    return fault if fault and not before else "<think> Pulmonary edema. </think><answer> A </answer>"


# Started in the background a process inherits a shell's deafness to ctrl-C; the program is to hear it all the same.
HEEDING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_pays_for_nothing_twice(tmp_path, how):
    path, out = sample_file(tmp_path), tmp_path / "out"
    with serve(faulty) as (url, log):
        command = ["--config=configs/eval.py", f"--config.files=('{path}',)", "--config.workers=2"]
        command += [f"--model=openai:tiny@{url}", f"--out={out}"]
        process = subprocess.Popen(
            [sys.executable, "-c", HEEDING, "-m", "chestx_jax.evaluate", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while sum(log.answered.values()) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == (3 if how == signal.SIGINT else -9), output
        if how == signal.SIGINT:
            assert b"interrupted" in output
        finished = door(*command)
    assert finished.returncode == 0, finished.stderr
    assert "24 of 24 samples answered" in finished.stdout
    lost = 2 if how == signal.SIGKILL else 0  # replies on their way when the process died
    assert sum(count - 1 for count in log.answered.values()) <= lost
    scores = json.loads((out / "scores.json").read_text())
    assert scores["run"]["complete"]
    assert scores["models"]["tiny"]["tasks"]["binary"]["metrics"]["accuracy"]["mean"] == 1.0
    assert (out / "report.html").exists()


def judged(body, before):
    """Replies that depend on what is asked, each reply once faulty for some; slow enough to be killed in the middle."""
    time.sleep(0.03)
    number = int(re.search(r"marker (\d+)", body["messages"][1]["content"])[1])
    if number % 6 == 0 and number < 18 and not before:
        return (429, 500, "cut")[number // 6]
    reply = {"key_conclusion": [{"observation": f"marker {number}", "status": "present"}] * (1 + number % 2)}
    counts = {"recalled_count": 1, "correct_count": number % 2, "effective_count": 1, "ineffective_count": number}
    return json.dumps(reply | counts)


def test_a_judge_that_is_killed_is_asked_nothing_twice(tmp_path):
    path = records(tmp_path)
    raw_records = json.loads(path.read_text())
    for number, record in enumerate(raw_records):
        record["reason_steps"], record["original_report"] = [f"marker {3 * number}."], f"marker {3 * number + 1}."
        record["pred"] = f"<think> marker {3 * number + 2}. </think><answer> A </answer>"
    path.write_text(json.dumps(raw_records))
    with serve(judged) as (url, log):
        command = ["--predictions", path, "--judge", f"openai:tiny@{url}", "--workers=2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "chestx_jax.evaluate", *map(str, command), f"--cache={tmp_path / 'cache'}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while sum(log.answered.values()) < 9 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        gone_on = document(tmp_path, *command, f"--cache={tmp_path / 'cache'}")
    assert len(log.answered) == 5 * len(raw_records)
    assert sum(count - 1 for count in log.answered.values()) <= 2  # replies on their way when the process died
    with serve(judged) as (url, _):
        unharmed = document(tmp_path, *command[:2], "--judge", f"openai:tiny@{url}", f"--cache={tmp_path / 'other'}")
    assert gone_on["micro"] == unharmed["micro"]
    assert 0 < gone_on["micro"]["radrscore"] < 1
    assert gone_on["usage"]["calls"] < unharmed["usage"]["calls"]


def test_a_remote_judge_writes_the_release_s_records(tmp_path):
    seen = {"observation": "edema", "status": "present"}
    reply = {
        "key_conclusion": [seen],
        "recalled_count": 1,
        "correct_count": 1,
        "effective_count": 1,
        "ineffective_count": 1,
    }
    judged = tmp_path / "judged.jsonl"
    with serve(lambda body, before: json.dumps(reply)) as (url, log):
        command = ["--predictions", records(tmp_path), "--judge", f"openai:tiny@{url}", "--per_item", judged]
        scores = document(tmp_path, *command)
        calls = sum(log.asked.values())
        again = document(tmp_path, *command)
    assert sum(log.asked.values()) == calls
    assert again["usage"]["calls"] == 0
    assert again["micro"] == scores["micro"]
    assert scores["micro"]["radrscore"] == pytest.approx((1 + 1 + 0.5) / 3)
    by_file = document(tmp_path, "--judgements", judged, "--aggregation", "official")
    assert by_file["micro"]["radrscore"] == pytest.approx(scores["micro"]["radrscore"])
    assert os.path.isdir(f"{judged}.cache")
