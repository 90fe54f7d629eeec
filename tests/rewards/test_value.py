"""The value of claims: additive, 1 for an honest complete reading, and nothing without looking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.findings import ASSERTED, HEDGED, Finding, pad_findings
from chestx_jax.findings.targets import Stakes, distinct, no_stakes
from chestx_jax.lexicon import load, relations
from chestx_jax.rewards import priors
from chestx_jax.rewards.priors import Question
from chestx_jax.rewards.value import ValueConfig, claim_values, report_worth

LEXICON, CONFIG = load(), ValueConfig()
RELATIONS = relations(LEXICON)
CONCEPTS = {name: LEXICON.concept(name) - 1 for name in (
    "Atelectasis", "Cardiomegaly", "Edema", "Fracture", "Lung Opacity", "Nodule", "Pleural Effusion", "Pneumonia",
    "Pneumothorax", "Port", "Scoliosis",
)}  # fmt: skip


def finding(concept, polarity, certainty, side, severity, change) -> Finding:
    return Finding(concept, polarity, certainty, side, severity=severity, change=change)


CODES = (st.sampled_from((HEDGED, ASSERTED)), *[st.integers(0, 3)] * 3)  # certainty, side, severity, change
FINDINGS = st.builds(finding, st.sampled_from(sorted(CONCEPTS.values())), st.integers(0, 1), *CODES)
TEXTS = st.lists(FINDINGS, max_size=6)


def values(claims, report, stakes=None):
    stakes = stakes or no_stakes(len(LEXICON.concepts), 1)
    arrays = pad_findings([claims], max(1, len(claims))), pad_findings([distinct(report)], 8)
    return claim_values(CONFIG, RELATIONS, *arrays, stakes, report_worth(CONFIG, RELATIONS, arrays[1], stakes))


def stakes_of(asked=(), prior=0.0, price=0.0) -> Stakes:
    empty = no_stakes(len(LEXICON.concepts), 1)
    named = empty.asked.copy()
    named[0, list(asked)] = True
    return Stakes(
        named, np.where(named, np.float32(prior), 0), np.where(named, np.float32(price), 0), empty.unasked + 0.1
    )


@settings(max_examples=60, deadline=None)
@given(claims=TEXTS, report=TEXTS)
def test_values_sum_to_the_gain(claims, report):
    result = values(claims, report)
    np.testing.assert_allclose(result.value.sum(1), result.gain, atol=1e-6)
    assert -1 <= result.process[0] <= 1


@settings(max_examples=60, deadline=None)
@given(report=TEXTS, asked=st.sets(st.sampled_from(sorted(CONCEPTS.values())), max_size=2))
def test_what_the_report_says_and_denies_has_1(report, asked):
    said = [finding for finding in distinct(report) if finding.polarity]
    shown = np.asarray([RELATIONS.is_a[finding.concept] for finding in said]).any(0) if said else None
    denials = [Finding(c, 0, ASSERTED) for c in asked if shown is None or not shown[c]]
    assert values([*said, *denials], said, stakes_of(asked, prior=0.3)).process[0] == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(claims=TEXTS, report=TEXTS, order=st.randoms(use_true_random=False))
def test_the_order_of_unlike_claims_does_not_matter(claims, report, order):
    unlike = distinct(claims)
    shuffled = list(unlike)
    order.shuffle(shuffled)
    np.testing.assert_allclose(values(shuffled, report).gain, values(unlike, report).gain, atol=1e-6)


def test_silence_has_nothing_and_a_repeat_costs_a_little():
    report = [Finding(CONCEPTS["Edema"], 1, ASSERTED)]
    assert values([], report).gain[0] == 0
    once, twice = (values(report * count, report).gain[0] for count in (1, 2))
    assert 0 < once - twice < 0.05


def test_attributes_and_relatives_earn_their_share():
    effusion = CONCEPTS["Pleural Effusion"]
    report = [Finding(effusion, 1, ASSERTED, side=1, severity=1)]

    def earned(**fields):
        return values([report[0]._replace(**fields)], report).earned[0, 0]

    assert earned() == 1.0
    for fields in ({"side": 2}, {"side": 3}, {"side": 0}, {"severity": 2}, {"severity": 3}, {"certainty": HEDGED}):
        assert 0 < earned(**fields) < 1.0
    assert earned(side=2) < earned(side=3) < earned(side=0)
    assert earned(severity=0) == 1.0  # unsaid
    assert earned(concept=LEXICON.concept("Meniscus") - 1) > 0  # a sign, and a kind, of it
    assert values([Finding(CONCEPTS["Fracture"], 1, ASSERTED)], report).gain[0] < 0


def test_a_finding_on_both_sides_is_not_had_by_trying_each():
    report = [Finding(CONCEPTS["Pleural Effusion"], 1, ASSERTED, side=1)]
    sides = [report[0]._replace(side=side) for side in (1, 2)]
    assert values(sides, report).gain[0] < values(sides[:1], report).gain[0]
    assert values(sides, report).earned[0, 0] == values([report[0]._replace(side=3)], report).earned[0, 0]


def test_denials_pay_by_the_prior_of_what_is_asked():
    edema = CONCEPTS["Edema"]
    denial, other = [Finding(edema, 0, ASSERTED)], [Finding(CONCEPTS["Fracture"], 1, ASSERTED)]
    right = [values(denial, other, stakes_of([edema], prior=prior)).gain[0] for prior in (0.1, 0.3, 0.6)]
    assert right == sorted(right)
    assert values(denial, other, stakes_of([], prior=0.5)).gain[0] == 0  # nothing is known of it
    assert values(denial, [Finding(edema, 1, ASSERTED)], stakes_of([edema], prior=0.3)).gain[0] < 0


@pytest.fixture(scope="module")
def mix():
    """Invented reports with questions of two families, and their priors."""
    rng = np.random.default_rng(0)
    rates = {"Lung Opacity": 0.4, "Pleural Effusion": 0.3, "Cardiomegaly": 0.3, "Edema": 0.15, "Fracture": 0.05}
    reports, questions = [], []
    for number in range(600):
        shown = [CONCEPTS[name] for name, rate in rates.items() if rng.random() < rate]
        reports.append([Finding(c, 1, int(rng.choice((HEDGED, ASSERTED))), int(rng.integers(4))) for c in shown])
        named = [CONCEPTS[name] for name in rng.choice(list(rates), 3, replace=False)]
        families = (Question("binary", frozenset(named[:1])), Question("single", options=frozenset(named)))
        questions.append(families[number % 2])
    findings = pad_findings(reports, 8)
    table = priors.count(CONFIG, LEXICON, RELATIONS, questions, findings)
    return questions, findings, table


def test_no_claim_is_worth_anything_without_looking(mix):
    """No claim that is made of every film has a mean gain above 0, and denials have one of about 0."""
    questions, findings, table = mix
    stakes = table.stakes(LEXICON, RELATIONS, questions, CONFIG.unasked)
    worth = report_worth(CONFIG, RELATIONS, findings, stakes)
    for concept in CONCEPTS.values():
        for claim in [Finding(concept, 1, ASSERTED, side) for side in range(4)] + [
            Finding(concept, 1, HEDGED), Finding(concept, 0, ASSERTED),
        ]:  # fmt: skip
            claims = pad_findings([[claim]] * len(questions), 1)
            gain = claim_values(CONFIG, RELATIONS, claims, findings, stakes, worth).gain
            for family in ("binary", "single"):
                mean = gain[[question.family == family for question in questions]].mean()
                assert mean < 0.01, (LEXICON.concepts[concept].name, claim, family)
                if not claim.polarity:
                    assert abs(mean) < 0.01


def test_the_likeliest_option_is_no_better_guess_than_the_others(mix):
    questions, findings, table = mix
    stakes = table.stakes(LEXICON, RELATIONS, questions, CONFIG.unasked)
    single = [question.family == "single" for question in questions]
    guesses = []
    for question, prior in zip(questions, stakes.prior, strict=True):
        named = sorted(question.asked | question.options)
        top = max(named, key=lambda concept: prior[concept])
        guesses.append([Finding(top, 1, ASSERTED), *(Finding(c, 0, ASSERTED) for c in named if c != top)])
    worth = report_worth(CONFIG, RELATIONS, findings, stakes)
    gain = claim_values(CONFIG, RELATIONS, pad_findings(guesses, 3), findings, stakes, worth).gain
    assert gain[single].mean() < 0.02


def test_a_table_is_written_and_read(mix, tmp_path):
    questions, _, table = mix
    priors.save(tmp_path / "priors.json", table, LEXICON)
    again = priors.load(tmp_path / "priors.json", LEXICON)
    for one, other in zip(*(t.stakes(LEXICON, RELATIONS, questions, 0.1) for t in (table, again)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_what_a_question_names_is_read():
    asked, single, none = priors.read_questions(
        LEXICON,
        [
            "Does this chest X-ray show pneumothorax? Options:\nA) Yes\nB) No",
            "Which finding is in this chest X-ray? Options:\nA) Edema\nB) Pleural Effusion",
            "Which findings are in this chest X-ray?",
        ],
        ["binary", "single", "anomaly"],
    )
    assert asked == Question("binary", frozenset([CONCEPTS["Pneumothorax"]]))
    assert single == Question("single", options=frozenset([CONCEPTS["Edema"], CONCEPTS["Pleural Effusion"]]))
    assert none == Question("anomaly")


@settings(max_examples=60, deadline=None)
@given(claims=TEXTS, report=TEXTS)
def test_what_the_text_denies_itself_earns_nothing(claims, report):
    report = [finding for finding in distinct(report) if finding.polarity]
    both = [*claims, *(Finding(finding.concept, 0, ASSERTED) for finding in claims if finding.polarity)]
    result = values(both, report)
    assert result.value[0, : len(claims)].max(initial=0) <= 0
    assert result.gain[0] <= values(claims, report).gain[0] + 1e-6


@pytest.mark.parametrize(
    ("denial", "keeps"),
    [
        (finding("Pleural Effusion", 0, ASSERTED, 0, 0, 0), False),
        (finding("Pleural Effusion", 0, HEDGED, 0, 0, 0), True),
        (finding("Pleural Effusion", 0, ASSERTED, 1, 0, 0), False),
        (finding("Pleural Effusion", 0, ASSERTED, 2, 0, 0), True),  # the other side
        (finding("Pleural Effusion", 0, ASSERTED, 0, 3, 0), True),  # "no large effusion"
        (finding("Pleural Effusion", 0, ASSERTED, 0, 0, 1), True),  # "no new effusion"
        (finding("Pneumothorax", 0, ASSERTED, 0, 0, 0), True),
    ],
)
def test_which_denials_speak_against_a_claim(denial, keeps):
    denial = denial._replace(concept=CONCEPTS[denial.concept])
    claim = Finding(CONCEPTS["Pleural Effusion"], 1, ASSERTED, side=1, severity=1)
    for text in ([claim, denial], [denial, claim]):
        result = values(text, [claim])
        assert (result.value[0, text.index(claim)] > 0) is np.bool_(keeps)
