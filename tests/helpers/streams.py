"""Iterators of batches over eleven records, as the pipeline's tests make them."""

from functools import partial

import jax
import numpy as np

from chestx_jax.buckets import LengthsConfig
from chestx_jax.data.mixture import Source
from chestx_jax.data.pipeline import prompt_batches, supervised_batches
from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.lexicon import load
from chestx_jax.tokens.rows import RowsConfig

ROWS = RowsConfig(length=320, image_slots=3, patches=16)
COUNT = 11  # records
LEXICON = load()
TARGETS = partial(reward_targets, LEXICON, slots=4)
LENGTHS = LengthsConfig(rows=(100, 130, 200))


def supervised(samples, encoder, max_bad=0.0, seed=0, own_rows=None, count=2, threads=0):
    sources = [Source(samples, 3.0, True), Source(samples, 1.0, False)]
    return supervised_batches(sources, encoder, count, ROWS, LENGTHS, seed, max_bad, own_rows, threads)


def prompting(samples, encoder, max_bad=0.0, seed=0, own_rows=None, count=4, threads=0):
    return prompt_batches(Source(samples), encoder, count, ROWS, LENGTHS, seed, max_bad, TARGETS, own_rows, threads)


def same(one, other):
    """Whether two batches hold the same arrays and records."""
    jax.tree.map(np.testing.assert_array_equal, getattr(one, "prompts", one), getattr(other, "prompts", other))
    assert getattr(one, "samples", None) == getattr(other, "samples", None)
