"""Format and outcome: what is well formed, and that the strict rule of evaluation then finds the same answer."""

import random

import jax
import numpy as np
import pytest

from chestx_jax import findings, lexicon
from chestx_jax.eval.answers.parsing import strict
from chestx_jax.labels import LABELS
from chestx_jax.rewards.reward import RewardConfig, score
from tests.helpers.reward_texts import BYTES, byte_completion

QUESTION = "Which finding is in this chest X-ray? Options:\nA) Edema\nB) Fracture\nC) Pneumonia\nD) Atelectasis"
OPEN_QUESTION = "Which findings are in this chest X-ray?"
WIDTH = 160


@pytest.fixture(scope="module")
def tables():
    return lexicon.compile_tables(lexicon.load(), BYTES)


def terms(tables, texts, answers, tasks, **options):
    """The score's terms; short lists are filled up so that few shapes compile."""
    size, filler = len(texts), max(32 - len(texts), 0)
    texts, answers, tasks = [*texts, *[""] * filler], [*answers, *["A"] * filler], [*tasks, *["single"] * filler]
    targets = findings.reward_targets(lexicon.load(), [()] * len(texts), [()] * len(texts), answers, tasks, 8)
    completion = byte_completion(texts, list(range(len(texts))), WIDTH)
    scores = jax.device_get(score(RewardConfig(slots=8, **options), tables, completion, targets))
    return {name: value[:size] for name, value in scores.terms.items()}


GOOD = (
    "<think> x </think><answer> A </answer>",
    "<think></think>\n<answer>A</answer>\n",
    " <think> x </think> <answer> (A) Edema </answer>",
)
BAD = (
    "", "A", "<answer> A </answer>", "<think> x </think>", "<think> x </think> so <answer> A </answer>", "<think> x </think><answer> A </answer>.",  # noqa: E501
    "<answer> A </answer><think> x </think>", "<think> <think> x </think><answer> A </answer>", "<think> x </think><answer> A </answer><answer> A </answer>",  # noqa: E501
    "<think> x </think><answer> A", "<think> x <answer> A </answer></think>", "<think> x </think><answer> </answer>", "<think> x </think><answer> yes </answer>",  # noqa: E501
    "< think> x </think><answer> A </answer>", "<think> x </think><answer> A <answer></answer>", "<think> x </think><answer> Aé </answer>",  # noqa: E501
)  # fmt: skip


def test_well_formed_texts(tables):
    scores = terms(tables, [*GOOD, *BAD], ["A"] * len(GOOD + BAD), ["single"] * len(GOOD + BAD))
    assert scores["format"].tolist() == [1.0] * len(GOOD) + [0.0] * len(BAD)


def test_an_open_answer_is_well_formed_behind_any_sentence(tables):
    """Signs count where they stand in the answer, not at the end of the reasoning before it."""
    block = "<think> The heart is big{} </think> <answer> {} </answer>".format
    good = [block(end, "Edema, Fracture") for end in (".", "?", ")", " -", "!\n")] + [block(".", "No Finding")]
    bad = [block(".", text) for text in ("- Edema", ". Edema", "(Edema", "Edema.", "Edema: Fracture", "A: Edema")]
    scores = terms(tables, [*good, *bad], ["Edema"] * 12, ["anomaly"] * 12)
    assert scores["format"].tolist() == [1.0] * 6 + [0.0] * 6


def test_partial_format_is_off_unless_asked_for(tables):
    text = "<think> x </think><answer> perhaps </answer>"
    assert terms(tables, [text], ["A"], ["single"])["format"].tolist() == [0.0]
    assert terms(tables, [text], ["A"], ["single"], partial_format=True)["format"].tolist() == [0.5]


def test_outcome_is_never_a_substring(tables):
    block = "<think> x </think><answer> {} </answer>".format
    cases = [
        ("A", "A", 1),
        ("A, B", "A", 0),
        ("AB", "A", 0),
        ("Answer", "A", 0),
        ("A and C", "A, C", 1),
        ("B", "A, B", 0),
        ("A or B", "A, B", 0),
        ("A) Edema or B) Fracture", "A, B", 0),
        ("A/B", "A, B", 0),
        ("A) Edema or haze", "A", 1),
    ]
    scores = terms(
        tables, [block(text) for text, _, _ in cases], [gold for _, gold, _ in cases], ["multiple"] * len(cases)
    )
    assert scores["accuracy"].tolist() == [float(right) for *_, right in cases]


def test_open_answers_score_by_label_sets(tables):
    block = "<think> x </think><answer> {} </answer>".format
    cases = [
        ("Edema, Pleural Effusion", 1.0),
        ("edema", 2 / 3),
        ("Edema, Fracture", 0.5),
        ("edema, banana", 0.5),
        ("effusively", 0.0),
    ]
    gold = ["Pleural Effusion, Edema"] * len(cases)
    scores = terms(tables, [block(text) for text, _ in cases], gold, ["anomaly"] * len(cases))
    np.testing.assert_allclose(scores["accuracy"], [value for _, value in cases], atol=1e-6)
    exact = terms(tables, [block(text) for text, _ in cases], gold, ["anomaly"] * len(cases), exact_labels=True)
    assert exact["accuracy"].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def answer_text(rng: random.Random, is_open: bool) -> str:
    names = [*LABELS, "effusion", "Pleural Effusions", "lung", "no findings"]
    parts = [
        "A", "B", "C", "D", "E", "a", "(A)", "B)", "A)", "and", "or", "option", "AND", "Edema", "Yes", "1", "é", "_",
        "*", "/",
    ]  # fmt: skip
    pool = names if is_open and rng.random() < 0.8 else parts
    joints = (", ", ", ", ",", " ", "; ", "\n", " and ", ". ", "-", ") ", "(", "  ", "</", "<", ">")
    text = "".join(
        rng.choice(pool) + rng.choice(joints if rng.random() < 0.5 else (", ", " ")) for _ in range(rng.randint(0, 3))
    )
    return text + (rng.choice(pool) if rng.random() < 0.8 else "")


def completion_text(rng: random.Random, is_open: bool) -> str:
    pieces = [
        "<think>",
        " it is so. ",
        "</think>",
        rng.choice(("", " ", "\n")),
        "<answer>",
        " " if rng.random() < 0.9 else rng.choice((". ", "- ", "(", ": ", "? ", "\n- ", ".", "1. ", "* ")),
        answer_text(rng, is_open),
        " ",
        "</answer>",
    ]
    if rng.random() < 0.3:
        pieces.insert(
            rng.randrange(10),
            rng.choice(("<answer>", "</answer>", "</think>", "<think>", "x", " ", "<ANSWER>", "<|x|>")),
        )
    if rng.random() < 0.1:
        pieces.pop(rng.randrange(len(pieces)))
    return "".join(pieces)


def test_wherever_format_is_1_the_outcome_is_the_strict_rule(tables):
    """And a closed answer that is paid without it is right by the strict rule, too."""
    rng = random.Random(3)
    well_formed = right = 0
    for batch in range(10):
        is_open = batch % 2 == 1
        texts = [completion_text(rng, is_open) for _ in range(1000)]
        if is_open:
            answers = [", ".join(rng.sample(LABELS[:12], rng.randint(1, 2))) for _ in texts]
            for row in range(0, 1000, 3):  # some right ones
                texts[row] = f"<think> It is so. </think><answer> {answers[row].lower()} </answer>"
        else:
            answers = [rng.choice(("A", "B", "C", "A, B", "D")) for _ in texts]
        scores = terms(tables, texts, answers, ["anomaly" if is_open else "single"] * 1000, exact_labels=True)
        readable = scores["format"] == 1 if is_open else (scores["format"] == 1) | (scores["accuracy"] == 1)
        for row in np.flatnonzero(readable):
            verdict = strict(texts[row], answers[row], OPEN_QUESTION if is_open else QUESTION)
            assert verdict.correct == (scores["accuracy"][row] == 1.0), (texts[row], answers[row], verdict)
            well_formed, right = well_formed + 1, right + verdict.correct
    assert well_formed > 1500
    assert right > 300
