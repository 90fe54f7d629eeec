"""A text with its clauses, its modes and the nearest cues: what the rules look at."""

from typing import Any, NamedTuple

from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.matches import Matches
from chestx_jax.findings.words import Words


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


def gap(words: Words, flag: int) -> Bool[Array, "T B"]:
    return words.word & ((words.gap & flag) != 0)
