"""From words to findings: what is mentioned, and what is said of it.

Each rule is a walk from a mention to the left or right up to a cue or a stop; `chestx_jax/findings/rules/` computes
the same with running maxima. What repeats a finding ("none on the left") is a mention of the last concept before it.
"""

from chestx_jax.findings.slots import ASSERTED, HEDGED, HYPOTHETICAL, Finding
from chestx_jax.lexicon.automaton import Automaton
from chestx_jax.lexicon.lexicon import Lexicon
from tests.helpers.oracle.assertion import answer, is_background, is_heading, non_assertive
from tests.helpers.oracle.attributes import read_attributes
from tests.helpers.oracle.directed import alternative, finding_shared, minus, near_finding, other_side
from tests.helpers.oracle.marked import Text, select_matches
from tests.helpers.oracle.reach import before, entity_of, follows, predicate_negated, shared_predicate
from tests.helpers.oracle.words import Word


def read_findings(lexicon: Lexicon, automaton: Automaton, words: list[Word]) -> list[Finding]:
    """The findings of a text's words (from `words.read_words`), in order, hypothetical ones included."""
    text = select_matches(automaton, words)
    findings: dict[int, Finding] = {}  # by the last word of the mention
    open_ones: set[int] = set()  # hypothetical and hedged ones that may be answered later in the text
    step = -1
    for i, word in enumerate(words):
        step += word.boundary
        claim = _claim(lexicon, text, i)
        if claim is None:
            continue
        concept, present, cue_word, negated = claim
        negated = negated or follows(text, cue_word, text.denies_behind) or (cue_word >= 0 and minus(text, cue_word))
        hedged = before(text, cue_word, text.hedges_ahead) or follows(text, cue_word, text.hedges_behind)
        named = text.records[i].concept and not text.records[i].inverse
        hedged = hedged or bool(named and not negated and alternative(text, i))
        supposed = non_assertive(text, i, _negation_of(text, i) if cue_word == i else -1)
        if (supposed and not is_heading(text, i) and not is_background(text, i)) or (
            hedged and not supposed and present != negated
        ):
            open_ones.add(i)
        begin = next(k for k in range(i + 1) if words[k].content >= text.starts[i])
        findings[i] = Finding(
            concept - 1, int(present != negated), HYPOTHETICAL if supposed else HEDGED if hedged else ASSERTED,
            step=step, first=words[begin].first, last=word.last, **read_attributes(text, i),
        )  # fmt: skip
    asserted = {i: bool(finding.polarity) for i, finding in findings.items() if finding.certainty}
    return [
        _answered(finding, answer(text, i, asserted), _claim(lexicon, text, i)[1]) if i in open_ones else finding
        for i, finding in findings.items()
    ]


def _answered(finding: Finding, answer: str, present: bool) -> Finding:
    if not answer or (answer == "denied" and not present):
        return finding
    certainty = HEDGED if answer == "hedged" else ASSERTED
    return finding._replace(polarity=int(present != (answer == "denied")), certainty=certainty)


def _claim(lexicon: Lexicon, text: Text, i: int) -> tuple[int, bool, int, bool] | None:
    """What a mention that ends at word i claims: concept, presence, the word whose cues count, and its negation before.

    None where word i ends no mention, an entity and predicate that say nothing together, or repeats nothing.
    """
    claim = _named(lexicon, text, i)
    shares_behind = other_side(text, i) >= 0 and not near_finding(text, i)
    if claim is None and (text.has(i, "repeats") or shares_behind):
        named = next((claim for j in range(i - 1, -1, -1) if (claim := _named(lexicon, text, j))), None)
        return named and (*named[:2], i, before(text, i, text.denies_ahead))
    return claim


def _named(lexicon: Lexicon, text: Text, i: int) -> tuple[int, bool, int, bool] | None:
    """`_claim` of a mention with a name of its own."""
    record = text.records[i]
    shared = finding_shared(text, i)
    if shared >= 0:
        return text.records[shared].concept, True, i, before(text, i, text.denies_ahead)
    if record.concept:
        return record.concept, not record.inverse, i, before(text, i, text.denies_ahead)
    if record.predicate:
        predicate_word, entity = i, entity_of(text, i)
    elif record.entity:
        predicate_word, entity = shared_predicate(text, i), record.entity
    else:
        return None
    predicate = text.records[predicate_word].predicate if predicate_word >= 0 else 0
    pair = lexicon.pairs.get((entity, predicate))
    return None if pair is None else (*pair, predicate_word, predicate_negated(text, predicate_word))


def _negation_of(text: Text, i: int) -> int:
    """The word of the negation that reaches word i from the left; -1 if none does."""
    if not before(text, i, text.denies_ahead):
        return -1
    return next(j for j in range(i, -1, -1) if text.denies_ahead(j))
