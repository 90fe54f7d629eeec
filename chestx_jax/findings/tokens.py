"""Findings of sampled token ids, in jit."""

from functools import partial

import jax
from jaxtyping import Array, Int

from chestx_jax.findings.jit_arrays import JAX, materialise
from chestx_jax.findings.rules.claims import read_claims
from chestx_jax.findings.rules.matches import Matches, select_matches
from chestx_jax.findings.slots import Findings, in_slots
from chestx_jax.findings.token_words import read_words
from chestx_jax.findings.words import Words, counted_steps
from chestx_jax.lexicon.token_tables import Tables


@partial(jax.jit, static_argnames=("slots", "think_only"))
def extract(
    tables: Tables, ids: Int[Array, "B L"], length: Int[Array, " B"], *, slots: int = 64, think_only: bool = True
) -> Findings:
    """The findings of B completions in M = `slots` slots, int32[B, M], equal to those of `text.extract`.

    `first` and `last` are token positions. `think_only` (training): findings of a closed think block alone. Otherwise
    (judging) a text without such a block is read whole, less its answer block.
    """
    return read(tables, ids, length, slots, think_only)[2]


def read(
    tables: Tables, ids: Int[Array, "B L"], length: Int[Array, " B"], slots: int, think_only: bool
) -> tuple[Words, Matches, Findings]:
    """`extract` with the words and phrase matches that the findings rest on."""
    words = read_words(tables, ids, length)
    words = materialise(words, words.content)
    matches = select_matches(JAX, tables.meanings, words)
    matches = materialise(matches, matches.roles)
    claims = read_claims(JAX, tables.meanings, words, matches)
    claims = materialise(claims, claims.number)
    counted = (claims.number > 0) & counted_steps(words, think_only)
    findings = in_slots(JAX, words, claims, counted, slots)
    return words, matches, materialise(findings, findings.overflow)
