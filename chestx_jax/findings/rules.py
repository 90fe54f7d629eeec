"""From words to findings: what mentions attach to, and how far each cue reaches.

The rules are written once, over an array namespace: numpy runs them on the host, `jax.numpy` in jit. Arrays are
[T, B]: T steps at which words end, B texts.

* Clauses end at sentence bounds, semicolons and terminators ("but").
* A negation before a mention reaches it unless the clause ends, a finite verb lies between, or the list ends
  (`marked`). A negation after reaches back to the nearest verb, negation or clause bound;
  a mention behind a verb of its own ("the heart is enlarged and edema is absent") only with no mention in between.
  One of a singular verb reaches back to a comma or "and", unless "or" makes a list of it ("effusion, and the tube has
  been removed").
* What is told of the patient ("treated for", up to a comma) asserts nothing.
* A predicate ("enlarged") applies to the entity right after it ("enlarged heart"), else to the last one before it in
  the clause ("heart is enlarged"), or before it if the clause refers back ("It is enlarged.") and no finding has been
  named since; entities in a row share one ("heart and mediastinum are normal").
* What repeats a finding ("none on the left") is a mention of the last concept before it. Of two sides with "and"
  between them, the one farther from their finding is a mention of it too ("small left and moderate right effusions").
* What follows a hypothetical cue ("look for") in its clause asserts nothing; with a definition ("would appear as"),
  nor does what precedes it. Words of observation ("the image shows") end this; after a lasting cue ("if") only behind
  a comma. An introduction ("to assess the heart, …") ends at a comma before a denial. What tells what an option
  lists covers the marked lines behind its colon as well.
* A hypothetical or hedged finding that is later denied without being named ("look for edema. None is seen.") is denied.
* Headings, questions and listed options assert nothing; the option that the text concludes on does.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings import nearest
from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.attributes import read_attributes
from chestx_jax.findings.marked import MarkedText, adds_item, gap, list_ends
from chestx_jax.findings.matches import Matches, start_ahead
from chestx_jax.findings.nearest import Nearest, before
from chestx_jax.findings.slots import Claims
from chestx_jax.findings.words import Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon.lexicon import CHANGES
from chestx_jax.lexicon.tables import Meanings

# Modes of a text at a word: neutral, observing, or hypothetical in one of three ways.
NEUTRAL, OBSERVES, SUPPOSES, INTRODUCES, DEFINES = range(5)
_DENIED, _HEDGED, _AFFIRMED = 1, 2, 3  # answers to a supposition or question
_LINKS, _ENDS, _MINUS = 2, 3, 4  # a word behind a conjunction or comma, or behind the end of a phrase; behind "(-)"
_NAMELESS = 511  # value of a mention that names no present concept


class _Cues(NamedTuple):
    """What reaches a mention that is a concept or a predicate itself."""

    negated: Bool[Array, "T B"]  # by a negation before it
    predicate_negated: Bool[Array, "T B"]  # with no mention or entity in between
    negated_after: Bool[Array, "T B"]
    hedged: Bool[Array, "T B"]
    denies_ahead: Bool[Array, "T B"]  # a negation of what follows stands here
    denies_behind: Bool[Array, "T B"]
    hedges_behind: Bool[Array, "T B"]
    negation: Nearest  # the next one of what precedes it
    option_behind: Nearest  # first words of options that were not chosen
    option_ahead: Nearest
    colon: Nearest  # the next one; 2 where what precedes it is a heading


class _Mentions(NamedTuple):
    """Concepts named, and entities with predicates."""

    number: Int[Array, "T B"]  # of the concept, from 1; 0: nothing is mentioned
    present: Bool[Array, "T B"]  # what the phrase says of it
    negated: Bool[Array, "T B"]
    hedged: Bool[Array, "T B"]
    shared: Bool[Array, "T B"]  # an entity with a neighbour's predicate


def read_claims(ops: ArrayOps, meanings: Meanings, words: Words, matches: Matches) -> Claims:
    """What B texts say, wherever a mention ends."""
    xp = ops.xp
    text = _mark(ops, words, matches)
    cues = _cues(text)
    mentions = _mentions(text, cues, meanings)
    mutes_before, asks, heading, mutes_after = _muted(text, cues)
    background = _background(text)
    muted = mutes_before | mutes_after | heading | background
    supposed = (text.mode == SUPPOSES) | (text.mode == DEFINES) | ((text.mode == INTRODUCES) & ~text.behind_comma)
    # A denial asserts whatever follows it ("no opacity that would suggest"): only what precedes the negation counts.
    denial = nearest.up_to_here(
        ops, cue=xp.where(cues.denies_ahead, 1 + (supposed | mutes_before).astype(np.int32), 0)
    ).cue
    still_muted = (denial.value == 2) | asks | heading | background
    supposes = _hypothetical(text, cues) | asks | muted
    non_assertive = xp.where(cues.negated & ~mentions.shared, still_muted, supposes)
    certainty = xp.where(non_assertive, 0, xp.where(mentions.hedged, 1, 2)).astype(np.int32)
    polarity = (mentions.present != mentions.negated).astype(np.int32)
    sentence = ops.sum_so_far(words.boundary.astype(np.int32)) - 1
    asserted = (mentions.number > 0) & (certainty > 0)
    hedged = asserted & (certainty == 1) & (polarity == 1)
    answer = _answer(text, cues, sentence, asserted, asserted & (polarity == 1), hedged, asks)
    weighed = (non_assertive & ~heading & ~background) | hedged
    answer = xp.where(weighed & (mentions.present | (answer != _DENIED)), answer, 0)
    attributes = read_attributes(text)
    return Claims(
        number=mentions.number,
        polarity=xp.where(answer > 0, mentions.present ^ (answer == _DENIED), polarity == 1).astype(np.int32),
        certainty=xp.where(answer > 0, xp.where(answer == _HEDGED, 1, 2), certainty),
        **attributes._asdict(),
        sentence=sentence,
        start=matches.start,
    )


def _mark(ops: ArrayOps, words: Words, matches: Matches) -> MarkedText:
    """The text with its nearest cues, clauses and modes."""
    xp, has = ops.xp, matches.has
    mention = matches.mention
    barrier = has("verb", "negation_before")
    comma = gap(words, a.COMMA)
    clause = words.boundary | gap(words, a.SEMICOLON) | has("terminator")
    link = comma | has("conjunction")
    side = _bare_side(xp, matches)
    ends = words.closing | words.boundary | gap(words, a.COMMA | a.SEMICOLON)
    minus = gap(words, a.BRACKET) & gap(words, a.HYPHEN) & ~gap(words, a.CLOSES_FIRST)
    hypothesis = xp.where(
        has("definition", "lasting"), DEFINES, xp.where(has("introduction"), INTRODUCES, SUPPOSES)
    ).astype(np.int32)
    resets = clause & (words.boundary | ~has("continues"))
    begun = xp.where(has("hypothetical"), hypothesis + 1, resets.astype(np.int32))
    bullet = words.boundary & gap(words, a.BULLET)
    lists = xp.where(has("lists"), 2, (has("hypothetical") | (resets & ~bullet)).astype(np.int32))
    ahead = nearest.after(
        ops,
        clause=clause,
        boundary=xp.where(words.boundary, xp.where(a.asks(words.gap), 2, 1), 0),
        mention=xp.where(matches.inverse | (matches.concept == 0), xp.where(mention, _NAMELESS, 0), matches.concept),
        entity=matches.entity,
        side=side,
        link=link,
        barrier=barrier,
        verb=has("verb"),
        word=xp.where(
            words.word, xp.where(ends, _ENDS, xp.where(link, _LINKS, 1)) | minus.astype(np.int32) * _MINUS, 0
        ),
        hypothetical=has("hypothetical"),
        conclusion=has("conclusion"),
        assertion=has("assertion"),
        definition=has("definition"),
        parted=comma | has("addition"),
        disjunction=has("disjunction"),
    )
    last = nearest.up_to_here(
        ops,
        clause=clause,
        boundary=words.boundary,
        mention=mention,
        entity=matches.entity,
        side=side,
        link=xp.where(link, xp.where(has("addition"), 2, 1), 0),
        joint=comma | adds_item(matches),
        background=has("background"),
        turn=clause | has("verb"),
        asserted_cue=barrier | has("assertion"),
        conclusion=has("conclusion"),
        begun=begun,
        lists=lists,
        listed=bullet & gap(words, a.COLON),
        comma=comma & ~has("hypothetical"),
        refers=has("refers"),
        concept=matches.concept > 0,
        subject=clause & (words.boundary | ~has("relative")),
    )
    # A hypothetical cue or a new clause begins a mode; the first words of observation after it, and after a definition
    # the first behind a comma, turn it into OBSERVES.
    begun = xp.maximum(last.begun.value - 1, NEUTRAL)
    begun = xp.where((last.lists.value == 2) & (last.listed.step > last.lists.step), SUPPOSES, begun)
    behind_comma = (last.comma.step >= 0) & (last.comma.step >= last.begun.step)
    ended = list_ends(words, matches, last, before(ops, last.mention), ahead)
    conclusion, boundary = before(ops, last.conclusion).step, before(ops, last.boundary).step
    announced = gap(words, a.COLON) & (conclusion >= 0) & (conclusion >= boundary)
    behind = nearest.up_to_here(
        ops,
        observes=has("assertion") & ~has("hypothetical") & ((begun != DEFINES) | behind_comma),
        stop=nearest.of_two(ops, clause | has("verb"), ended),
        word=xp.where(words.word, xp.where(announced, 2, 1), 0),
    )
    observing = (behind.observes.step >= 0) & (behind.observes.step >= last.begun.step)
    moves = (matches.change > CHANGES.index("stable")) | has("change_after")
    starts = start_ahead(ops, matches.start[:, None], xp.stack([matches.entity > 0, moves], 1))
    return MarkedText(
        ops=ops, words=words, matches=matches, clause=clause, mode=xp.where(observing, OBSERVES, begun),
        behind_comma=behind_comma, last=last, stop=behind.stop.step, announced=before(ops, behind.word).value == 2,
        next=ahead, entity_start=starts[:, 0], change_start=starts[:, 1],
    )  # fmt: skip


def _cues(text: MarkedText) -> _Cues:
    """What reaches a mention, from before or after it.

    A cue that may stand on either side belongs to the mention ahead of it in its clause ("possible edema"), unless a
    verb, a negation or, right behind it, a conjunction or comma stands between; else to the one before.
    """
    last, following, has, xp = text.last, text.next, text.matches.has, text.ops.xp
    ahead = (following.mention.step < following.clause.step) & (following.mention.step <= following.barrier.step)
    ahead = ahead & ((following.word.value & _ENDS) == 1)
    replies = has("reply") & has("negation_before") & ((following.word.value & _ENDS) == _ENDS)
    denies_ahead = has("negation_before") & (ahead | ~has("negation_after")) & ~replies
    denies_behind = (has("negation_after") & ~(has("negation_before") & ahead)) | replies
    hedges_ahead = (has("hedge_before") & (ahead | ~has("hedge_after"))) | text.gap(a.DOUBT)
    hedges_behind = has("hedge_after") & ~(has("hedge_before") & ahead & ~has("conjunction"))
    subjects = 1 + has("singular").astype(np.int32)
    where = text.ops.xp.where
    option, colon = text.words.option & ~text.announced, text.gap(a.COLON)
    subject = text.words.boundary | text.matches.mention | (following.mention.step < following.boundary.step)
    subject = subject & ~denies_behind & ~has("affirms")
    behind = nearest.up_to_here(text.ops, negation=denies_ahead, hedge=hedges_ahead, option=option)
    coming = nearest.after(
        text.ops,
        negation=where(denies_behind, subjects, 0),
        hedge=where(hedges_behind, subjects, 0),
        option=option,
        colon=where(colon, 1 + subject.astype(np.int32), 0),
    )

    def follows(cue: Nearest) -> Array:
        """Whether a cue after a mention reaches back to it; the value of a cue with one subject is 2."""
        reaches = (following.clause.step > cue.step) & (following.barrier.step >= cue.step)
        own_verb = last.turn.step > last.clause.step
        parted = (following.parted.step < cue.step) & (following.disjunction.step >= cue.step)
        too_far = (own_verb & (following.mention.step < cue.step)) | (parted & (cue.value == 2))
        return (cue.step < text.steps) & reaches & ~too_far

    def reaches(cue: Nearest) -> Array:
        """Whether a cue at or before a mention reaches it."""
        return (cue.step >= 0) & (cue.step >= text.stop)

    negated = reaches(behind.negation)
    negation_behind = before(text.ops, behind.negation).step
    between = xp.maximum(before(text.ops, last.mention).step, before(text.ops, last.entity).step)
    return _Cues(
        negated=negated,
        predicate_negated=negated & (negation_behind >= 0) & (negation_behind >= between),
        negated_after=follows(coming.negation) | ((following.word.value & _MINUS) != 0),
        hedged=reaches(behind.hedge) | follows(coming.hedge),
        denies_ahead=denies_ahead,
        denies_behind=denies_behind,
        hedges_behind=hedges_behind,
        negation=coming.negation,
        option_behind=behind.option,
        option_ahead=coming.option,
        colon=coming.colon,
    )


def _mentions(text: MarkedText, cues: _Cues, meanings: Meanings) -> _Mentions:
    xp, last, following = text.ops.xp, text.last, text.next
    concept, entity, predicate = text.matches.concept, text.matches.entity, text.matches.predicate
    # The entity of a predicate: right after it, else the last one before it in the clause.
    entity_ahead = following.entity.step < following.clause.step
    attributive = entity_ahead & (text.entity_start == text.words.content + 1)
    entity_behind = before(text.ops, last.entity)
    refers_back = (last.refers.step >= last.subject.step) & (last.concept.step < entity_behind.step)
    has_behind = (entity_behind.step >= 0) & ((last.subject.step <= entity_behind.step) | refers_back)
    behind = xp.where(has_behind, entity_behind.value, 0)
    predicate_pair = meanings.pairs[xp.where(attributive, following.entity.value, behind), predicate]

    # The predicate that an entity shares: of the next one in a row, else the one before a row's first entity.
    predicate_denied = cues.predicate_negated | cues.negated_after
    packed = predicate << 2 | predicate_denied.astype(np.int32) << 1 | cues.hedged.astype(np.int32)
    is_predicate = predicate > 0
    behind = nearest.up_to_here(
        text.ops, predicate=xp.where(is_predicate, packed, 0), attributive=is_predicate & attributive
    )
    coming = nearest.after(text.ops, predicate=xp.where(is_predicate & ~attributive, packed, 0)).predicate
    in_row = entity_ahead & (following.entity.step <= coming.step) & (following.verb.step >= following.entity.step)
    earlier = before(text.ops, behind.predicate)
    carried = (
        (earlier.step >= 0)
        & (last.turn.step <= earlier.step)
        & (entity_behind.step >= earlier.step)
        & (before(text.ops, behind.attributive).step == earlier.step)
    )
    shared = xp.where(
        coming.step < following.clause.step,
        xp.where(in_row, coming.value, 0),
        xp.where(carried, earlier.value, 0),
    )
    shared_pair = meanings.pairs[entity, shared >> 2]

    concept_ahead, shares_behind = _shared_sides(text)
    concept = xp.where(concept > 0, concept, concept_ahead)
    is_concept = concept > 0
    is_predicate = ~is_concept & is_predicate
    is_shared = ~is_concept & ~is_predicate & (entity > 0)
    pair = xp.where(is_predicate, predicate_pair, xp.where(is_shared, shared_pair, 0))
    repeats = text.matches.has("repeats") | shares_behind
    negated = xp.where(is_concept | repeats, cues.negated | cues.negated_after, predicate_denied)
    number = xp.where(is_concept, concept, pair >> 1)
    present = xp.where(is_concept, ~text.matches.inverse, (pair & 1) == 1)
    named = nearest.up_to_here(text.ops, it=xp.where(number > 0, number << 1 | present.astype(np.int32), 0)).it
    repeats = (number == 0) & repeats
    return _Mentions(
        number=xp.where(repeats, named.value >> 1, number),
        present=xp.where(repeats, (named.value & 1) == 1, present),
        negated=xp.where(is_shared, ((shared >> 1) & 1) == 1, negated),
        hedged=xp.where(is_shared, (shared & 1) == 1, cues.hedged),
        shared=is_shared,
    )


def _shared_sides(text: MarkedText) -> tuple[Int[Array, "T B"], Bool[Array, "T B"]]:
    """The concept ahead where a side stands for it, and where one stands for the finding before.

    Of two sides with "and" between them, the one farther from the finding does.
    """
    xp, last, following = text.ops.xp, text.last, text.next
    side = _bare_side(xp, text.matches)
    other, mention = before(text.ops, last.side), before(text.ops, last.mention)
    joined = (last.link.value == 2) & (last.link.step > other.step) & (last.clause.step <= other.step)
    second = (side > 0) & (other.value > 0) & (other.value + side == 3) & joined & (mention.step < other.step)
    near = second & (following.mention.step < xp.minimum(following.link.step, following.clause.step))
    ahead = xp.take_along_axis(near, xp.minimum(following.side.step, text.steps - 1), 0)
    ahead = ahead & (following.side.step < text.steps) & (side > 0) & (following.mention.value != _NAMELESS)
    ahead = ahead & (mention.step < xp.maximum(last.link.step, last.clause.step))
    return xp.where(ahead, following.mention.value, 0), second & ~near


def _bare_side(xp: Any, matches: Matches) -> Int[Array, "T B"]:
    """The side that a word names which is no finding and no part of the body."""
    return xp.where(matches.mention | (matches.entity > 0), 0, matches.side)


def _muted(text: MarkedText, cues: _Cues) -> tuple[Array, Array, Array, Array]:
    """Where mentions assert nothing: behind a muting word of the clause, in a question, in a heading, before one.

    The first words of listed options mute, unless a conclusion announces the option ("The
    correct answer is: A) …"). A heading names the subject of what follows a colon ("Effusion: the angles are sharp."),
    unless the first word there answers it ("Effusion: no, the angles are sharp.").
    """
    xp, last, following, option = text.ops.xp, text.last, text.next, cues.option_behind.step
    heading = (
        (cues.colon.value == 2)
        & (following.boundary.step >= cues.colon.step)
        & (xp.minimum(following.barrier.step, following.assertion.step) >= cues.colon.step)
        & (last.asserted_cue.step < last.boundary.step)
    )
    asks = (following.boundary.step < text.steps) & (following.boundary.value == 2)
    mutes_before = (option >= 0) & (option >= last.clause.step)
    return mutes_before, asks, heading, cues.option_ahead.step < following.clause.step


def _background(text: MarkedText) -> Bool[Array, "T B"]:
    """Where a mention tells of the patient, up to a comma or what else stops a cue."""
    cue, stop = text.last.background.step, text.ops.xp.maximum(text.stop, text.last.comma.step)
    return (cue >= 0) & (cue >= stop)


def _hypothetical(text: MarkedText, cues: _Cues) -> Bool[Array, "T B"]:
    """Where the mode, or a definition further on in the clause, lets mentions assert nothing."""
    xp, following = text.ops.xp, text.next
    scope_end = xp.minimum(following.clause.step, following.hypothetical.step)
    resolved = xp.minimum(following.conclusion.step, cues.negation.step) < scope_end
    resolved = resolved | (text.behind_comma & (following.assertion.step < scope_end))
    defined = following.definition.step < xp.minimum(following.clause.step, following.assertion.step)
    supposes = (text.mode == SUPPOSES) | (text.mode == INTRODUCES)
    return (supposes & ~resolved) | (text.mode == DEFINES) | ((text.mode == NEUTRAL) & defined)


def _answer(
    text: MarkedText, cues: _Cues, sentence: Array, asserted: Array, present: Array, hedged: Array, asks: Array
) -> Int[Array, "T B"]:
    """What a hypothetical finding is answered later without being named; 0: nothing.

    "Not seen" denies what the sentence before or the same one supposes, asks or hedges, if no finding is asserted in
    between; so do "yes" and, of a question, "possibly" affirm and hedge it. "This rules out the option" also denies
    what is supposed two sentences before, if no present finding is in between.
    """
    xp, steps, has = text.ops.xp, text.steps, text.matches.has
    assertive = (text.mode == NEUTRAL) | (text.mode == OBSERVES) | (text.behind_comma & (text.mode != DEFINES))
    affirms = has("affirms") & (~has("reply") | ((text.next.word.value & _ENDS) == _ENDS))
    answer = xp.where(cues.denies_behind, _DENIED, xp.where(affirms, _AFFIRMED, 0))
    answer = xp.where((answer == 0) & cues.hedges_behind, _HEDGED, answer)
    ahead = nearest.after(
        text.ops,
        unnamed=has("unnamed") & assertive,
        answer=xp.where(assertive, answer, 0).astype(np.int32),
        present=present,
        asserted=asserted,
    )

    def within(cue: Nearest, sentences: int) -> Array:
        there = xp.take_along_axis(sentence, xp.minimum(cue.step, steps - 1), 0)
        return (cue.step < steps) & (there - sentence <= sentences)

    unnamed = (ahead.unnamed.step < ahead.present.step) & within(ahead.unnamed, 2) & ~hedged
    counts = (ahead.answer.value != _HEDGED) | asks
    named = (ahead.answer.step < ahead.asserted.step) & within(ahead.answer, 1) & counts
    return xp.where(named, ahead.answer.value, xp.where(unnamed, _DENIED, 0))
