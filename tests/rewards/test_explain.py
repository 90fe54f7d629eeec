"""Explanations: each sentence with its findings, verdicts, values and reasons, as text and as JSON."""

import json

import pytest

from chestx_jax.lexicon import load
from chestx_jax.rewards.__main__ import main
from chestx_jax.rewards.explain import explain
from chestx_jax.rewards.texts import Item

TEXT = "The heart is enlarged. No pleural effusion or pneumothorax. An effusion would blunt the angle."
REPORT = "Mild cardiomegaly. Small left pleural effusion."


def test_each_sentence_has_its_verdicts():
    steps = explain(load(), Item(TEXT, (REPORT,)))
    assert [finding.verdict for step in steps for finding in step.findings] == [
        "supported",
        "contradicted",
        "supported",
        "not scored",
    ]
    assert steps[0].value > 0
    assert steps[1].findings[0].value <= 0
    assert "Small left pleural effusion." in steps[1].findings[0].why
    for step in steps:
        assert step.value == pytest.approx(sum(finding.value for finding in step.findings))
        for finding in step.findings:
            assert step.text.encode()[finding.start : finding.end].decode() == finding.words


def test_without_a_report_nothing_is_scored():
    steps = explain(load(), Item(TEXT, ()))
    assert {finding.verdict for step in steps for finding in step.findings} == {"not scored"}
    assert {step.value for step in steps} == {None}


def test_the_command_prints_text_and_json(capsys, tmp_path):
    assert main(["--text", TEXT, "--report", REPORT]) == 0
    assert "Cardiomegaly (present): supported" in capsys.readouterr().out
    (tmp_path / "text").write_text(TEXT)
    assert main(["--text", f"@{tmp_path / 'text'}", "--report", REPORT, "--json"]) == 0
    assert [len(step["findings"]) for step in json.loads(capsys.readouterr().out)] == [1, 2, 1]
    assert main(["--text", "@/no/such/file"]) == 2
    assert "cannot be read" in capsys.readouterr().err
