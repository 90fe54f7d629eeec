"""Whether a text asserts what it mentions.

* What is told of the patient ("treated for", up to a comma) asserts nothing.
* What follows a hypothetical cue ("look for") in its clause asserts nothing; with a definition ("would appear as"),
  nor does what precedes it. Words of observation ("the image shows") end this; after a lasting cue ("if") only behind
  a comma. An introduction ("to assess the heart, …") ends at a comma before a denial. What tells what an option
  lists covers the marked lines behind its colon as well.
* A hypothetical or hedged finding that is later denied without being named ("look for edema. None is seen.") is denied.
* Headings, questions and listed options assert nothing; the option that the text concludes on does.
"""

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.cues import Cues
from chestx_jax.findings.rules.marked import DEFINES, ENDS, INTRODUCES, NEUTRAL, OBSERVES, SUPPOSES, MarkedText
from chestx_jax.findings.rules.nearest import Nearest

DENIED, HEDGED, AFFIRMED = 1, 2, 3  # answers to a supposition or question


def muted(text: MarkedText, cues: Cues) -> tuple[Array, Array, Array, Array]:
    """Where mentions assert nothing: behind a muting word of the clause, in a question, in a heading, before one.

    The first words of listed options mute, unless a conclusion announces the option ("The correct answer is: A) …").
    A heading names the subject of what follows a colon ("Effusion: the angles are sharp."),
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


def background(text: MarkedText) -> Bool[Array, "T B"]:
    """Where a mention tells of the patient, up to a comma, a verb or the end of the clause."""
    cue, stop = text.last.background.step, text.ops.xp.maximum(text.last.turn.step, text.last.comma.step)
    return (cue >= 0) & (cue >= stop)


def hypothetical(text: MarkedText, cues: Cues) -> Bool[Array, "T B"]:
    """Where the mode, or a definition further on in the clause, lets mentions assert nothing."""
    xp, following = text.ops.xp, text.next
    scope_end = xp.minimum(following.clause.step, following.hypothetical.step)
    resolved = xp.minimum(following.conclusion.step, cues.negation.step) < scope_end
    resolved = resolved | (text.behind_comma & (following.assertion.step < scope_end))
    defined = following.definition.step < xp.minimum(following.clause.step, following.assertion.step)
    supposes = (text.mode == SUPPOSES) | (text.mode == INTRODUCES)
    return (supposes & ~resolved) | (text.mode == DEFINES) | ((text.mode == NEUTRAL) & defined)


def find_answer(
    text: MarkedText, cues: Cues, sentence: Array, asserted: Array, present: Array, hedged: Array, asks: Array
) -> Int[Array, "T B"]:
    """What a hypothetical finding is answered later without being named; 0: nothing.

    "Not seen" denies what the sentence before or the same one supposes, asks or hedges, if no finding is asserted in
    between; so do "yes" and, of a question, "possibly" affirm and hedge it, with no finding of its own in the clause.
    The "yes" of another sentence affirms no hedged finding: it answers the text's question. "This rules out the option"
    also denies what is supposed two sentences before, if no present finding is in between.
    """
    xp, steps, has = text.ops.xp, text.steps, text.matches.has
    assertive = (text.mode == NEUTRAL) | (text.mode == OBSERVES) | (text.behind_comma & (text.mode != DEFINES))
    affirms = has("affirms") & (~has("reply") | ((text.next.word.value & ENDS) == ENDS))
    answer = xp.where(cues.denies_behind, DENIED, xp.where(affirms, AFFIRMED, 0))
    alone = text.last.mention.step < text.last.clause.step
    answer = xp.where((answer == 0) & cues.hedges_behind & alone, HEDGED, answer)
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
    counts = (ahead.answer.value != HEDGED) | asks
    counts = counts & ((ahead.answer.value != AFFIRMED) | ~hedged | within(ahead.answer, 0))
    named = (ahead.answer.step < ahead.asserted.step) & within(ahead.answer, 1) & counts
    return xp.where(named, ahead.answer.value, xp.where(unnamed, DENIED, 0))
