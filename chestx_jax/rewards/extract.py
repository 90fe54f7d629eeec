"""Findings of sampled token ids, in jit."""

from functools import partial

import jax
from jaxtyping import Array, Int

from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards import scan, scopes
from chestx_jax.types import Findings


@partial(jax.jit, static_argnames=("slots", "think_only"))
def extract(
    tables: Tables, ids: Int[Array, "B L"], length: Int[Array, " B"], *, slots: int = 64, think_only: bool = True
) -> Findings:
    """The findings of B completions in M = `slots` slots, int32[B, M], equal to those of `lexicon.extract`.

    `first` and `last` are token positions. `think_only` (training): findings of a closed think block alone. Otherwise
    (judging) a text without such a block is read whole, less its answer block.
    """
    words = scan.read_words(tables, ids, length)
    return scopes.read_findings(tables, words, scopes.select_matches(tables, words), slots, think_only)
