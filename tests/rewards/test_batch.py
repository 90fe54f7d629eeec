"""Files of texts: one line a text, what is wrong with a line said on its line, and a run that goes on."""

import json
import re

import pytest

from chestx_jax.errors import UserError
from chestx_jax.lexicon import load
from chestx_jax.rewards import batch
from tests.helpers.paths import ROOT

LINES = [
    {"id": 1, "text": "There is a small left effusion. No edema.", "report": "Small left effusion."},
    {
        "id": "two",
        "text": "<think>Edema.</think><answer>A</answer>",
        "report": ["No edema.", "New edema."],
        "answer": "A",
    },
    {"id": 3, "report": "Edema."},
    {"id": 4, "text": "Edema.", "report": "Edema.", "task": "essay"},
    {"id": 5, "text": "caf\ud800\u00e9 edema \U0001f600.", "report": "Edema.", "question": None},
]
FINDING = ("concept", "polarity", "certainty", "side", "site", "severity", "change", "film", "step")


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no JSON\n[1]\n")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_has_its_scores_or_its_error(tmp_path):
    write(tmp_path / "in.jsonl", LINES)
    assert batch.score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", load(), "additive", None) == 7
    lines = read(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [1, "two", 3, 4, 5, None, None]
    assert ["error" in line for line in lines] == [False, False, True, True, False, True, True]
    first, second = lines[:2]
    assert first["process"] == 1.0
    assert set(first) == {"id", "process", "gain", "terms", "findings", "report_findings", "version"}
    assert tuple(first["findings"][0]) == (*FINDING, "value", "verdict")
    assert tuple(first["report_findings"][0]) == FINDING
    assert first["findings"][0]["side"] == "left"
    assert first["findings"][0]["film"] is None
    assert second["terms"]["format"] == second["terms"]["accuracy"] == 1.0
    assert [finding["film"] for finding in second["report_findings"]] == ["earlier", "current"]


def test_the_line_in_the_docs_is_what_is_written(tmp_path):
    docs = (ROOT / "docs" / "process-reward.md").read_text()
    given, shown = re.findall(r'^.*`(\{"id": 1.*?\})`:\n\n```json\n(.*)\n', docs, re.MULTILINE)[0]
    (tmp_path / "in.jsonl").write_text(given + "\n")
    batch.score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", load(), "additive", None)
    written, shown = read(tmp_path / "out.jsonl")[0], json.loads(shown)
    assert written.pop("version").keys() == shown.pop("version").keys()  # the language grows
    assert written.pop("gain") == pytest.approx(shown.pop("gain"), abs=0.05)  # with it the default priors
    assert [finding.pop("value") > 0 for finding in written["findings"] + shown["findings"]] == [True, True]
    assert written == shown


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    write(tmp_path / "in.jsonl", LINES)
    arguments = (tmp_path / "in.jsonl", tmp_path / "out.jsonl", load(), "paper", None)
    batch.score_file(*arguments)
    whole = (tmp_path / "out.jsonl").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        batch.score_file(*arguments)
        assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_the_scores_of_another_file_are_not_continued(tmp_path):
    write(tmp_path / "in.jsonl", LINES)
    (tmp_path / "out.jsonl").write_text('{"id": "other"}\n')
    with pytest.raises(UserError, match="choose another --out"):
        batch.score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", load(), "additive", None)
