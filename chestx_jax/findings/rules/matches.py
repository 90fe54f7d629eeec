"""The phrase matches of a text that count, with what they mean."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.words import Words
from chestx_jax.lexicon.lexicon import ROLE
from chestx_jax.lexicon.tables import Meanings

NOWHERE = 1 << 30  # content number of the start of no match


class Matches(NamedTuple):
    """The matches that count, at the step of their last word; 0 elsewhere. Fields as `tables.pack_record` has them."""

    meaning: Int[Array, "T B"]
    attributes: Int[Array, "T B"]
    roles: Int[Array, "T B"]
    start: Int[Array, "T B"]  # content number of the first lexeme

    def has(self, *roles: str) -> Bool[Array, "T B"]:
        """Steps whose match has one of the roles."""
        return (self.roles & sum(ROLE[role] for role in roles)) != 0

    @property
    def concept(self) -> Array:
        return self.meaning & 511

    @property
    def entity(self) -> Array:
        return (self.meaning >> 9) & 63

    @property
    def predicate(self) -> Array:
        return (self.meaning >> 15) & 63

    @property
    def mention(self) -> Array:
        """Whether the match may be a finding of its own."""
        return (self.concept > 0) | (self.predicate > 0) | self.has("repeats")

    @property
    def inverse(self) -> Array:
        return ((self.meaning >> 21) & 1) == 1

    @property
    def label(self) -> Array:
        return ((self.meaning >> 22) & 1) == 1

    @property
    def depth(self) -> Array:
        return self.attributes & 31

    @property
    def side(self) -> Array:
        return (self.attributes >> 5) & 3

    @property
    def change(self) -> Array:
        return (self.attributes >> 7) & 3

    @property
    def severity(self) -> Array:
        return (self.attributes >> 9) & 3

    @property
    def film(self) -> Array:
        return (self.attributes >> 11) & 3

    @property
    def site(self) -> Array:
        return (self.attributes >> 13) & 63


def select_matches(ops: ArrayOps, meanings: Meanings, words: Words) -> Matches:
    """The matches of B texts, less those that a later-ending one overlaps ("pleural" in "pleural effusion").

    One that is dropped drops nothing: of "this is" and "is unchanged" the second counts, and "this" with it. Of "lung",
    "lung fields", "lung fields for" and "for any" every second one counts; longer chains are not told apart.
    """
    xp = ops.xp
    record = xp.where(words.word[..., None], meanings.record[words.state], 0)
    depth = record[..., 1] & 31
    start = words.content - depth + 1
    ends = words.word & (depth > 0) & ~words.passed
    counts = ends
    for _ in range(2):
        counts = ends & (start_ahead(ops, start, counts) > words.content)
    selected = words.passed | (start_ahead(ops, start, counts) > words.content)
    meaning, attributes, roles = (xp.where(selected, record[..., k], 0) for k in range(3))
    return Matches(meaning, attributes, roles, start)


def start_ahead(ops: ArrayOps, start: Int[Array, "T ..."], where: Bool[Array, "T ..."]) -> Int[Array, "T ..."]:
    """The least start of the matches that end after each step, of those `where` holds; NOWHERE if none does."""
    starts = ops.min_from_here(ops.xp.where(where, start, np.int32(NOWHERE)))
    return ops.xp.concatenate([starts[1:], ops.xp.full_like(starts[:1], NOWHERE)])
