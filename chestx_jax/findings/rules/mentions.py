"""What is mentioned: concepts, entities with predicates, and what stands for a finding named elsewhere.

* Of two findings with "or" between them each is possible, unless denied ("atelectasis or pneumonia").
* A predicate ("enlarged") applies to the entity right after it ("enlarged heart"), else to the last one before it in
  the clause ("heart is enlarged"), or before it if the clause refers back ("It is enlarged.") and no finding has been
  named since; entities in a row share one ("heart and mediastinum are normal").
* What repeats a finding ("none on the left") is a mention of the last concept before it. Of two sides with "and"
  between them, the one farther from their finding is a mention of it too ("small left and moderate right effusions").
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.cues import Cues
from chestx_jax.findings.rules.marked import AND, NAMELESS, OR, MarkedText, bare_side
from chestx_jax.findings.rules.nearest import before
from chestx_jax.lexicon.tables import Meanings


class Mentions(NamedTuple):
    """Concepts named, and entities with predicates."""

    number: Int[Array, "T B"]  # of the concept, from 1; 0: nothing is mentioned
    present: Bool[Array, "T B"]  # what the phrase says of it
    negated: Bool[Array, "T B"]
    hedged: Bool[Array, "T B"]
    shared: Bool[Array, "T B"]  # an entity with a neighbour's predicate


def read_mentions(text: MarkedText, cues: Cues, meanings: Meanings) -> Mentions:
    """What is mentioned at each step, given what reaches it and what pairs of entity and predicate mean."""
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
    named_here = (text.matches.concept > 0) & ~text.matches.inverse
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
    return Mentions(
        number=xp.where(repeats, named.value >> 1, number),
        present=xp.where(repeats, (named.value & 1) == 1, present),
        negated=xp.where(is_shared, ((shared >> 1) & 1) == 1, negated),
        hedged=xp.where(is_shared, (shared & 1) == 1, cues.hedged | (_alternative(text) & named_here & ~negated)),
        shared=is_shared,
    )


def _alternative(text: MarkedText) -> Bool[Array, "T B"]:
    """Whether "or" joins a mention with the one behind it or before it ("atelectasis or pneumonia")."""
    last, following = text.last, text.next
    other = before(text.ops, last.mention).step
    with_last = (last.link.value == OR) & (last.link.step > other) & (last.turn.step <= other)
    with_next = (following.link.value == OR) & (following.link.step < following.mention.step)
    with_next = with_next & (following.mention.step < following.clause.step)
    return with_last | (with_next & (following.mention.step <= following.barrier.step))


def _shared_sides(text: MarkedText) -> tuple[Int[Array, "T B"], Bool[Array, "T B"]]:
    """The concept ahead where a side stands for it, and where one stands for the finding before.

    Of two sides with "and" between them, the one farther from the finding does.
    """
    xp, last, following = text.ops.xp, text.last, text.next
    side = bare_side(xp, text.matches)
    other, mention = before(text.ops, last.side), before(text.ops, last.mention)
    joined = (last.link.value == AND) & (last.link.step > other.step) & (last.clause.step <= other.step)
    second = (side > 0) & (other.value > 0) & (other.value + side == 3) & joined & (mention.step < other.step)
    near = second & (following.mention.step < xp.minimum(following.link.step, following.clause.step))
    ahead = xp.take_along_axis(near, xp.minimum(following.side.step, text.steps - 1), 0)
    ahead = ahead & (following.side.step < text.steps) & (side > 0) & (following.mention.value != NAMELESS)
    ahead = ahead & (mention.step < xp.maximum(last.link.step, last.clause.step))
    return xp.where(ahead, following.mention.value, 0), second & ~near
