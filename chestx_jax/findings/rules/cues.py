"""How far a negation or a doubt reaches.

* A negation before a mention reaches it unless the clause ends, a finite verb lies between, or the list ends
  (`marked`). A negation after reaches back to the nearest verb, negation or clause bound; a mention behind a verb of
  its own ("the heart is enlarged and edema is absent") only with no mention in between. One of a singular verb reaches
  back to a comma or "and", unless "or" makes a list of it ("effusion, and the tube has been removed"). So does a doubt.
* Behind words that compare explanations "over" and "than" deny ("favors pneumonia over edema").
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from chestx_jax.findings.arrays import Array
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.marked import ENDS, MINUS, MarkedText
from chestx_jax.findings.rules.nearest import Nearest, before
from chestx_jax.lexicon import alphabet as a


class Cues(NamedTuple):
    """What reaches a mention that is a concept or a predicate itself."""

    negated: Bool[Array, "T B"]  # by a negation before it
    predicate_negated: Bool[Array, "T B"]  # with no mention in between, and no entity behind a comma
    negated_after: Bool[Array, "T B"]
    hedged: Bool[Array, "T B"]
    denies_ahead: Bool[Array, "T B"]  # a negation of what follows stands here
    denies_behind: Bool[Array, "T B"]
    hedges_behind: Bool[Array, "T B"]
    negation: Nearest  # the next one of what precedes it
    option_behind: Nearest  # first words of options that were not chosen
    option_ahead: Nearest
    colon: Nearest  # the next one; 2 where what precedes it is a heading


def read_cues(text: MarkedText) -> Cues:
    """What reaches a mention, from before or after it.

    A cue that may stand on either side belongs to the mention ahead of it in its clause ("possible edema"), unless a
    verb, a negation or, right behind it, a conjunction or comma stands between; else to the one before.
    """
    last, following, has, xp = text.last, text.next, text.matches.has, text.ops.xp
    ahead = (following.mention.step < following.clause.step) & (following.mention.step <= following.barrier.step)
    ahead = ahead & ((following.word.value & ENDS) == 1)
    replies = has("reply") & has("negation_before") & ((following.word.value & ENDS) == ENDS)
    denies_ahead = has("negation_before") & (ahead | ~has("negation_after")) & ~replies
    denies_ahead = denies_ahead | (has("than") & (last.prefers.step >= last.clause.step) & (last.prefers.step >= 0))
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
    entity = xp.where(last.comma.step > negation_behind, before(text.ops, last.entity).step, -1)
    between = xp.maximum(before(text.ops, last.mention).step, entity)
    return Cues(
        negated=negated,
        predicate_negated=negated & (negation_behind >= 0) & (negation_behind >= between),
        negated_after=follows(coming.negation) | ((following.word.value & MINUS) != 0),
        hedged=reaches(behind.hedge) | follows(coming.hedge),
        denies_ahead=denies_ahead,
        denies_behind=denies_behind,
        hedges_behind=hedges_behind,
        negation=coming.negation,
        option_behind=behind.option,
        option_ahead=coming.option,
        colon=coming.colon,
    )
