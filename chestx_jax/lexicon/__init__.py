"""Radiology text as findings: the lexicon, its automata and the reference reading. numpy and text only."""

from chestx_jax.lexicon import extract
from chestx_jax.lexicon.extract import extract_batch
from chestx_jax.lexicon.gold import reward_targets
from chestx_jax.lexicon.lexicon import Lexicon, load
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.lexicon.token_tables import Tables, compile_tables

__all__ = ["Finding", "Lexicon", "Tables", "compile_tables", "extract", "extract_batch", "load", "reward_targets"]
