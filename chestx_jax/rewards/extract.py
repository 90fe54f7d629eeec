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
    """What each completion asserts, as `lexicon.extract` reads it; `first` and `last` are tokens.

    `think_only`: read the think block alone (training), else a text without one whole, less its answer block (judging).
    """
    words = scan.words(tables, ids, length)
    return scopes.findings(tables, words, scopes.matches(tables, words), slots, think_only)
