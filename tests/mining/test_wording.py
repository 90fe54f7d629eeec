"""Sentences of findings say what they were made of, whatever the concept and its attributes."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.findings import HYPOTHETICAL, Finding, extract, read_texts
from chestx_jax.labels import LABELS, TASKS
from chestx_jax.lexicon import load
from chestx_jax.mining import plans, wording

LEXICON = load()
CONCEPTS = [i for i, concept in enumerate(LEXICON.concepts) if not concept.general and concept.weight > 0]
UNSAID = {"Haziness", "Small Heart", "Fissural Fluid"}  # no sentence of ours says them alone


def findings():
    numbers = (st.integers(1, 2), st.integers(0, 3), st.integers(0, len(LEXICON.sites)), st.integers(0, 3))
    return st.builds(
        lambda concept, attributes: Finding(concept, 1, *attributes), st.sampled_from(CONCEPTS), st.tuples(*numbers)
    )


@settings(max_examples=150, deadline=None)
@given(findings(), st.integers(0, 60))
def test_a_sentence_is_read_as_its_finding(finding, way):
    text = wording.present(LEXICON, finding, way)
    if text is None:
        assert finding.certainty == 1 or LEXICON.concepts[finding.concept].name in UNSAID
        return
    (read,) = extract(LEXICON, text)
    assert (read.concept, read.polarity, read.certainty) == (finding.concept, 1, finding.certainty)
    for name in ("side", "site", "severity"):
        assert getattr(read, name) in (0, getattr(finding, name))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(range(12)), min_size=1, max_size=4, unique=True), st.integers(0, 60))
def test_a_denial_denies_each(concepts, way):
    text = wording.absent(LEXICON, tuple(concepts), way)
    if text is not None:
        assert {(f.concept, f.polarity) for f in extract(LEXICON, text)} == {(concept, 0) for concept in concepts}
    assert wording.absent(LEXICON, (concepts[0],), way)


def test_openings_and_plans_assert_nothing():
    pairs = itertools.product(LABELS, LABELS[:-1], TASKS, range(4))
    openings = {plans.opening((label, other), task, way) for label, other, task, way in pairs}
    texts = [*openings, *plans.plan(LABELS).values()]
    for text, reading in zip(texts, read_texts(LEXICON, texts), strict=True):
        assert all(finding.certainty == HYPOTHETICAL for finding in reading.findings), text


def test_articles_and_plurals():
    effusion, clips = (LEXICON.concept(name) - 1 for name in ("Pleural Effusion", "Surgical Clips"))
    assert (
        wording.present(LEXICON, Finding(effusion, 1, 2, 3, 0, 1), 0) == "There are small bilateral pleural effusions."
    )
    assert wording.present(LEXICON, Finding(clips, 1, 2), 0) == "There are surgical clips."
    assert wording.present(LEXICON, Finding(LABELS.index("Enlarged Cardiomediastinum"), 1, 2), 2).count("a e") == 0
    angle = LEXICON.concept("Blunted Costophrenic Angle") - 1
    texts = {wording.present(LEXICON, Finding(angle, 1, 2, 2, 0, 1), way) for way in range(6)}
    assert "The right costophrenic angle is mildly blunted." in texts
    assert not any("mildly right" in text for text in texts)
