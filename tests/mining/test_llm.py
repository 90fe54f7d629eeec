"""Reasoning by an LLM, against a server on loopback that makes every kind of mistake: none gets through."""

import itertools
import json

import numpy as np
import pytest

from chestx_jax.endpoint.client import Endpoint
from chestx_jax.lexicon import load
from chestx_jax.mining import llm, readback
from chestx_jax.mining.questions import FAMILIES
from chestx_jax.mining.reference import read_references
from tests.helpers.chat_server import serve
from tests.helpers.mined_studies import made_up_studies
from tests.helpers.reasoning_writer import CHAIN_MISTAKES, EVIDENCE_MISTAKES, FAULTS, right_replies, writer

LEXICON = load()


@pytest.fixture(scope="module")
def questions():
    """A few questions of each family whose reports speak of all that is asked."""
    references = read_references(LEXICON, made_up_studies(150, follow_ups=24))
    made = [make(LEXICON, references, 0, np.random.default_rng(0))[:10] for make in FAMILIES.values()]
    return list(itertools.chain(*made))


def endpoint(url, folder, **settings):
    defaults = {"first_wait": 0.01, "max_wait": 0.1, "timeout": 0.5, "workers": 4}
    return Endpoint("tiny", url, folder / "cache", **{**defaults, **settings})


def mine(tmp_path, questions, mistake, **settings):
    with serve(writer(LEXICON, questions, mistake)) as (url, log):
        mined = dict(llm.mine_all(endpoint(url, tmp_path, **settings), LEXICON, questions))
    return [mined[number] for number in range(len(questions))], log


def test_right_replies_become_reasoning(tmp_path, questions):
    questions = questions[::3]
    mined, log = mine(tmp_path, questions, lambda kind, question, again: "")
    for question, result in zip(questions, mined, strict=True):
        assert result.reasoning, (result.refused, result.unanswered)
        assert not result.repaired
        assert list(result.reasoning.plan) == list(question.named)
        assert readback.problems(LEXICON, question, result.reasoning.steps) == []
    calls = sum(2 + len(question.references) for question in questions)
    assert sum(result.usage.calls + result.usage.cached for result in mined) == calls
    assert sum(log.answered.values()) <= calls
    assert llm.estimate(questions)["calls"] == calls


MISTAKES = [("chain", *pair) for pair in CHAIN_MISTAKES.items()]
MISTAKES += [("evidence", *pair) for pair in EVIDENCE_MISTAKES.items()]


def spoilt(questions, again_too):
    """For each mistake a question, and what the server does: the mistake, and on request of a repair again or not."""
    one_film = [question for question in questions if len(question.references) == 1 and question.options]
    by_prompt = {list(right_replies(LEXICON, [question]))[-1]: question for question in one_film}
    chosen = list(by_prompt.values())[: len(MISTAKES)]  # the same findings are the same prompt
    assert len(chosen) == len(MISTAKES)
    of_question = dict(zip((question.id for question in chosen), MISTAKES, strict=True))

    def mistake(kind, question, again):
        wrong_kind, name, _ = of_question[question.id]
        return name if kind == wrong_kind and (again_too or not again) else ""

    return chosen, mistake


def test_no_mistake_gets_through(tmp_path, questions):
    chosen, mistake = spoilt(questions, again_too=True)
    mined, _ = mine(tmp_path, chosen, mistake)
    assert [result.refused[0] for result in mined] == [reason for *_, reason in MISTAKES]
    assert not any(result.reasoning for result in mined)


def test_a_mistake_is_repaired_once(tmp_path, questions):
    chosen, mistake = spoilt(questions, again_too=False)
    mined, _ = mine(tmp_path, chosen, mistake)
    for result, (*_, reason) in zip(mined, MISTAKES, strict=True):
        if "form" in reason:  # what is no JSON is asked for again in the same words, under another seed
            assert result.refused[0] == reason
        else:
            assert result.reasoning
            assert result.repaired == reason


def test_faults_of_the_server_pass(tmp_path, questions):
    few = dict(zip((question.id for question in questions), FAULTS, strict=False))
    asked = [question for question in questions if question.id in few]
    mined, log = mine(tmp_path, asked, lambda kind, question, again: few[question.id])
    assert all(result.reasoning for result in mined)
    assert max(log.asked.values()) == 2


def test_plans_that_tell_what_is_seen_are_replaced(tmp_path, questions):
    def script(body, before):
        reply = right(body, before)
        if "plan" in json.loads(reply):
            return json.dumps({"plan": [{"finding": "Edema", "plan": "There is edema."}, {"finding": 3}]})
        return reply

    right = writer(LEXICON, questions, lambda *_: "")
    with serve(script) as (url, _):
        mined = dict(llm.mine_all(endpoint(url, tmp_path), LEXICON, questions[::10]))
    assert all("There is" not in text for result in mined.values() for text in result.reasoning.plan.values())


def test_an_endpoint_that_is_down_leaves_questions_to_ask_again(tmp_path, questions):
    down = endpoint("http://127.0.0.1:9/v1", tmp_path, attempts=2, patience=3, workers=1)
    mined = [result for _, result in llm.mine_all(down, LEXICON, questions)]
    assert len(mined) == len(questions)
    assert all(result.unanswered and not result.refused[0] for result in mined)
    mined, _ = mine(tmp_path, questions[:3], lambda *_: "")
    assert all(result.reasoning for result in mined)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.1.2.3/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://192.168.1.5:8000/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://0.0.0.0:8000/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://127.0.0.1@example.com/v1", False),
    ],
)
def test_what_is_this_machine(url, local, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert llm.is_local(url) == local
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    assert not llm.is_local("http://127.0.0.1:8000/v1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert llm.is_local("http://127.0.0.1:8000/v1")
