"""The language of radiology reports as data: the lexicon, its automata and tables. numpy and text only."""

from chestx_jax.lexicon.lexicon import Lexicon, load
from chestx_jax.lexicon.tables import Relations, relations
from chestx_jax.lexicon.token_tables import Tables, compile_tables

__all__ = ["Lexicon", "Relations", "Tables", "compile_tables", "load", "relations"]
