"""A text with its clauses, its modes and the nearest cues: what the rules look at.

* Behind a comma or "with", an item with an attribute or a doubt of its own ends a list ("no pneumothorax, small left
  effusion") that no "or" goes on with ("no pneumothorax, large effusion, or mass"). ", with" ends one at once.
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.matches import Matches
from chestx_jax.findings.nearest import Nearest
from chestx_jax.findings.words import Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon.lexicon import SEVERITIES


class MarkedText(NamedTuple):
    """What several rules look at, of B texts in T steps."""

    ops: ArrayOps
    words: Words
    matches: Matches
    clause: Bool[Array, "T B"]  # the word begins a clause
    mode: Int[Array, "T B"]
    behind_comma: Bool[Array, "T B"]  # a comma followed since the mode's cue or the clause began
    last: Any  # `nearest.up_to_here` of the cues
    stop: Int[Array, "T B"]  # step of the last stop of what precedes a mention, up to here
    announced: Bool[Array, "T B"]  # the word before stands behind the announcement of a conclusion
    next: Any  # `nearest.after` of the cues
    entity_start: Int[Array, "T B"]  # least start of the entities' matches ahead
    change_start: Int[Array, "T B"]  # the same of what tells of a change

    def gap(self, flag: int) -> Bool[Array, "T B"]:
        """Words with such a separator before them."""
        return gap(self.words, flag)

    @property
    def steps(self) -> int:
        return self.words.word.shape[0]


def adds_item(matches: Matches) -> Bool[Array, "T B"]:
    """Where "with" or the like begins an item that may end a list."""
    return matches.has("conjunction") & ~matches.has("addition", "disjunction")


def list_ends(words: Words, matches: Matches, last: Any, mention_before: Nearest, following: Any) -> Nearest:
    """The joint at which a list ends, where its last item is known; given the nearest cues on both sides."""
    attribute = (matches.side > 0) | (matches.site > 0) | ((matches.change > 0) & ~matches.has("change_after"))
    attribute = attribute | ((matches.severity > 0) & (matches.severity < SEVERITIES.index("severe")))
    item = (attribute | matches.has("hedge_before")) & (last.joint.step > mention_before.step)
    goes_on = following.disjunction.step < following.clause.step
    return Nearest(last.joint.step, (item & ~goes_on) | (gap(words, a.COMMA) & adds_item(matches)))


def gap(words: Words, flag: int) -> Bool[Array, "T B"]:
    return words.word & ((words.gap & flag) != 0)
