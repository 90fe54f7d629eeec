"""`attacks.toml`: texts written without the film earn less than honest readings, on cases of every kind."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from chestx_jax import lexicon
from chestx_jax.rewards.texts import Item, score_texts

ATTACKS = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text(encoding="utf-8"))
CASES, TEXTS = ATTACKS["case"], {attack["name"]: attack["text"] for attack in ATTACKS["attack"]}


def gains(case: dict, texts) -> list[float]:
    items = [Item(text, tuple(case["report"]), case["question"], case["task"], case["answer"]) for text in texts]
    return [score.gain for score in score_texts(lexicon.load(), items)]


@pytest.fixture(scope="module")
def scores():
    """The gain of each attack on each case, of the reading with one error, and of the true ones."""
    attacks = [gains(case, (text.format(concept=case["concept"].lower()) for text in TEXTS.values())) for case in CASES]
    one_error = [gains(case, [case["one_error"]])[0] for case in CASES]
    true = [np.mean(gains(case, case["true"])) for case in CASES]
    return dict(zip(TEXTS, np.transpose(attacks), strict=True)), np.asarray(one_error), np.asarray(true)


def test_cases_and_attacks_are_whole():
    names = {concept.name for concept in lexicon.load().concepts}
    assert len(CASES) == 5
    for case in [*CASES, ATTACKS["normal"]]:
        assert case["concept"] in names
        assert len(case["report"]) == 1 + (case["task"] == "temporal")
    for case in CASES:
        assert case["error"] in case["one_error"]
        assert len(case["true"]) == 2
    assert len(TEXTS) == len(set(TEXTS.values())) == len(ATTACKS["attack"]) == 30
    for text in TEXTS.values():
        assert "{" not in text.format(concept="edema")


@pytest.mark.parametrize("name", TEXTS)
def test_what_needs_no_film_earns_less_than_a_reading_with_an_error(scores, name):
    """On average over the cases, by far; what is common may happen to be all that one film shows."""
    attacks, one_error, true = scores
    assert attacks[name].mean() < 0.5 * one_error.mean()
    assert attacks[name].mean() < 0.5 * true.mean()
    assert (attacks[name] < one_error).sum() >= 4


def test_a_normal_film_read_honestly_earns_no_less_than_any_template():
    normal = ATTACKS["normal"]
    texts = [normal["honest"], *(text.format(concept=normal["concept"].lower()) for text in TEXTS.values())]
    items = [Item(text, tuple(normal["report"]), normal["question"], normal["task"]) for text in texts]
    honest, *templates = score_texts(lexicon.load(), items)
    assert honest.process > 0.95
    assert honest.process >= max(template.process for template in templates)
