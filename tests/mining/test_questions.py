"""Questions: nothing in their text tells the answer, and no answer that is not sure."""

from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

from chestx_jax.data.questions import options
from chestx_jax.eval.statistics.blind_baselines import cross_fitted_baselines
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import load, relations
from chestx_jax.mining.questions import FAMILIES, changed_pairs
from chestx_jax.mining.reference import read_references
from chestx_jax.sources.study import Change
from tests.helpers.mined_studies import made_up_studies, make_study

LEXICON = load()


@pytest.fixture(scope="module")
def references():
    return read_references(LEXICON, made_up_studies(300, follow_ups=60))


def ask(family, references, limit=0, seed=0):
    return FAMILIES[family](LEXICON, references, limit, np.random.default_rng(seed))


@pytest.fixture(scope="module", params=list(FAMILIES))
def questions(request, references):
    made = ask(request.param, references)
    assert len(made) > 20
    return made


def test_each_answer_of_a_group_is_right_once(questions):
    groups = defaultdict(list)
    for question in questions:
        groups[question.group].append(question)
    for group in groups.values():
        if group[0].options:
            offered = {frozenset(map(frozenset, question.options)) for question in group}
            assert len(offered) == 1
            right = [frozenset(question.options[ord(question.answer) - 65]) for question in group]
            assert sorted(map(sorted, right)) == sorted(map(sorted, next(iter(offered))))


def test_no_guesser_beats_chance(questions):
    items = [SimpleNamespace(task=q.task, question=q.text, answer=q.answer) for q in questions]
    (row,) = cross_fitted_baselines(items, groups=[question.group for question in questions]).values()
    if questions[0].options:
        chance = 1 / len(questions[0].options)
        best = max(row[guesser] for guesser in ("letter", "label", "order", "combined"))
        assert best < chance + 3 * (chance * (1 - chance) / row["n"]) ** 0.5


def test_no_study_is_asked_the_same_twice(questions):
    keys = Counter((question.reference.study.id, question.text, question.gold) for question in questions)
    assert max(keys.values()) == 1
    assert len({question.id for question in questions}) == len(questions)


def test_wrong_options_are_surely_wrong(questions):
    is_a = relations(LEXICON).is_a
    for question in questions:
        known = question.reference.statuses
        if question.task not in ("single", "multiple"):
            continue
        for letter, option in zip("ABCD", question.options, strict=True):
            values = [known[label].value for label in option]
            assert "uncertain" not in values
            assert (values.count("absent") == 0) == (letter == question.answer)
            for label in option:
                for gold in question.gold:
                    one, other = LABELS.index(label), LABELS.index(gold)
                    related = label != gold and (is_a[one, other] or is_a[other, one])
                    assert not (known[label].value == "absent" and related)


def test_binary_answers_are_what_the_study_shows(references):
    for question in ask("binary", references):
        value = question.reference.statuses[question.gold[0]].value
        assert value == ("present" if question.answer == "A" else "absent")


def test_half_of_the_wrong_binary_studies_show_something_else(references):
    wrong = [question for question in ask("binary", references, limit=10) if question.answer == "B"]
    assert sum(bool(question.reference.shown) for question in wrong) >= len(wrong) // 2


def test_the_limit_holds_for_each_label(references):
    for family in FAMILIES:
        counts = Counter((question.gold, question.answer) for question in ask(family, references, limit=5))
        if family == "binary":
            assert max(counts.values()) <= 5
        if family == "single":
            golds = Counter(question.gold for question in ask(family, references, limit=5))
            assert max(golds.values()) <= 5


def test_the_same_seed_gives_the_same_questions(questions, references):
    again = ask(questions[0].task, references)
    assert [(q.id, q.text, q.answer) for q in again] == [(q.id, q.text, q.answer) for q in questions]
    other = ask(questions[0].task, references, seed=1)
    assert [(q.id, q.text) for q in other] != [(q.id, q.text) for q in questions]


def test_options_are_read_as_they_were_made(questions):
    for question in questions:
        texts = [", ".join(option).lower() for option in question.options]
        assert [text.lower() for text in options(question.text).values()] == texts


def pair(before, after, **fields):
    reports = enumerate((before, after))
    return [make_study(f"s{i}", report, patient="openi:1", order=i, **fields) for i, report in reports]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("Small left effusion.", "The left effusion has increased.", "worsening"),
        ("Moderate left effusion.", "Unchanged left effusion.", "stable"),
        ("Clear lungs. No effusion.", "New left effusion.", "worsening"),
        ("Large effusion.", "Decreased effusion.", "improving"),
        ("No effusion.", "Stable effusion.", None),  # it was not there
        ("Possible effusion.", "Stable effusion.", None),
        ("Small effusion.", "Small effusion.", None),  # the report tells of no change
    ],
)
def test_changes_are_those_of_the_later_report(before, after, change):
    references = read_references(LEXICON, pair(f"FINDINGS: {before}", f"FINDINGS: {after}"))
    assert [found.change for found in changed_pairs(LEXICON, references)] == ([change] if change else [])


def test_readers_of_the_set_outweigh_the_report():
    first, second = pair("FINDINGS: Left effusion.", "FINDINGS: Stable left effusion.")
    third = make_study(
        "s2",
        "FINDINGS: Left effusion.",
        patient="openi:1",
        order=2,
        changes=(Change("pleural effusion", "worsening", "f", "s0", "g", "experts"),),
    )
    pairs = changed_pairs(LEXICON, read_references(LEXICON, [first, second, third]))
    assert [(p.earlier.study.id, p.current.study.id, p.change) for p in pairs] == [
        ("s0", "s1", "stable"),
        ("s0", "s2", "worsening"),
    ]
