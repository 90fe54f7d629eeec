"""Radiology text as findings: the lexicon, its automata and the plain reference reading. numpy and text only."""

from chestx_jax.lexicon import extract
from chestx_jax.lexicon.extract import findings
from chestx_jax.lexicon.gold import reference
from chestx_jax.lexicon.lexicon import Lexicon, load
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.lexicon.token_tables import Tables, tables

__all__ = ["Finding", "Lexicon", "Tables", "extract", "findings", "load", "reference", "tables"]
