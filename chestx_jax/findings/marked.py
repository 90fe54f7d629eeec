"""A text with its clauses, its modes and the nearest cues: what the rules look at.

* Behind a comma or "with", an item with an attribute or a doubt of its own ends a list ("no pneumothorax, small left
  effusion") that no "or" goes on with ("no pneumothorax, large effusion, or mass"). ", with" ends one at once.
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Int

from chestx_jax.findings import nearest
from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.matches import Matches
from chestx_jax.findings.nearest import Nearest, before
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
    next: Any  # `nearest.after` of the cues

    def gap(self, flag: int) -> Bool[Array, "T B"]:
        """Words with such a separator before them."""
        return gap(self.words, flag)

    @property
    def steps(self) -> int:
        return self.words.word.shape[0]


def list_ends(ops: ArrayOps, words: Words, matches: Matches, next_clause: Nearest, disjunction: Nearest) -> Nearest:
    """The joint at which a list ends, where its last item is known; given the next clause and the next "or"."""
    has, comma = matches.has, gap(words, a.COMMA)
    adds = has("conjunction") & ~has("addition", "disjunction")
    behind = nearest.up_to_here(ops, joint=comma | adds, mention=matches.mention)
    attribute = (matches.side > 0) | (matches.site > 0) | ((matches.change > 0) & ~has("change_after"))
    attribute = attribute | ((matches.severity > 0) & (matches.severity < SEVERITIES.index("severe")))
    item = (attribute | has("hedge_before")) & (behind.joint.step > before(ops, behind.mention).step)
    ends = (item & (disjunction.step >= next_clause.step)) | (comma & adds)
    return Nearest(behind.joint.step, ends)


def gap(words: Words, flag: int) -> Bool[Array, "T B"]:
    return words.word & ((words.gap & flag) != 0)
