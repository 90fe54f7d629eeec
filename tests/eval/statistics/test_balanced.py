"""Balanced accuracy by label: what it is of a constant answer, its interval by patient, its mean over labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.eval.statistics.balanced import MEAN, balanced_accuracy

QUESTION = st.tuples(st.sampled_from("ABC"), st.booleans(), st.booleans(), st.integers(0, 9))


def columns(questions):
    return [list(column) for column in zip(*questions, strict=True)]


@given(st.lists(QUESTION, min_size=1, max_size=60))
def test_it_is_the_mean_of_sensitivity_and_specificity(questions):
    """Of each label that has both, and the mean of these; each lies within its interval's reach of 0 and 1."""
    found = balanced_accuracy(*columns(questions))
    wanted = {}
    for label in sorted({label for label, *_ in questions}):
        right = [[c for name, p, c, _ in questions if name == label and p == answer] for answer in (True, False)]
        if all(right):
            wanted[label] = np.mean([np.mean(of_answer) for of_answer in right])
    if wanted:
        wanted[MEAN] = np.mean(list(wanted.values()))
    assert {label: interval.mean for label, interval in found.items()} == pytest.approx(wanted)
    assert all(0 <= interval.low <= interval.high <= 1 for interval in found.values())


@given(st.lists(QUESTION, min_size=1, max_size=40), st.booleans())
def test_a_constant_answer_is_at_a_half_however_rare_a_finding_is(questions, answer):
    constant = [(label, positive, positive == answer, group) for label, positive, _, group in questions]
    for interval in balanced_accuracy(*columns(constant)).values():
        assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_the_interval_counts_patients_not_questions():
    """Ten questions a patient, all right or all wrong, say as much as one: the interval is as wide as of the patients'
    alone, and three times as wide as if each question were of another patient."""
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(100) < 0.7, 10)
    positive = np.tile([True, False], 500)
    patients = np.repeat(np.arange(100), 10)
    ask = lambda groups: balanced_accuracy(["A"] * 1000, positive, right, groups)["A"]  # noqa: E731
    by_patient, by_question = ask(patients), ask(range(1000))
    width = by_patient.high - by_patient.low
    assert width / (by_question.high - by_question.low) == pytest.approx(10**0.5, rel=0.15)
    assert width == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 100) ** 0.5, rel=0.15)


def test_without_questions_there_is_nothing():
    assert balanced_accuracy([], [], [], []) == {}
    assert balanced_accuracy(["A"], [True], [True], ["p"]) == {}
