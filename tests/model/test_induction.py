"""Attention initialized as induction heads continues a repeated sequence before any training."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.errors import UserError
from chestx_jax.model import qwen_vl
from chestx_jax.types import Images, Tokens
from tests.helpers.tiny_rows import CONFIG

LENGTH, VOCABULARY = 64, 512
MODEL = replace(
    CONFIG,
    vocab_size=VOCABULARY,
    layers=3,
    width=128,
    heads=4,
    kv_heads=4,
    mrope_section=(4, 6, 6),
    rope_theta=1e6,
    tied=True,
    initializer_range=0.08,
    residual_range=0.0,
    start="induction",
)


def next_token_ranks(config, seed: int) -> np.ndarray:
    """Rank of the right next token at each position of a random sequence that occurs twice."""
    half = np.random.default_rng(seed).permutation(VOCABULARY)[: LENGTH // 2]
    ids = np.concatenate([half, half]).astype(np.int32)
    positions = jnp.arange(LENGTH, dtype=jnp.int32)
    tokens = Tokens(
        ids=jnp.asarray(ids)[None],
        segments=jnp.ones((1, LENGTH), jnp.int32),
        positions=jnp.repeat(positions[None, :, None], 3, axis=-1),
        visual=jnp.full((1, LENGTH), -1, jnp.int32),
    )
    images = Images(
        patches=jnp.zeros((1, 1, 4, 3 * config.vision.patch_size**2), jnp.uint8),
        positions=jnp.zeros((1, 1, 4, 2), jnp.int32),
        valid=jnp.zeros((1, 1, 4), bool),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    params = qwen_vl.init(config, jax.random.key(seed))
    scores = np.asarray(qwen_vl.logits(config, params, qwen_vl.forward(config, params, tokens, images)))[0]
    return np.array([(scores[i] > scores[i, ids[i + 1]]).sum() for i in range(LENGTH - 1)])


@pytest.mark.parametrize(("family", "kv_heads"), [("qwen2_vl", 4), ("qwen2_vl", 2), ("qwen3_vl", 4)])
def test_a_repeated_sequence_is_continued(family, kv_heads):
    """With biased queries and keys, and with normed ones without a bias."""
    vision = replace(MODEL.vision, deepstack_layers=(0, 1))
    config = replace(MODEL, family=family, kv_heads=kv_heads, vision=vision)
    ranks = next_token_ranks(config, 0)
    first, second = np.median(ranks[: LENGTH // 2 - 1]), np.median(ranks[LENGTH // 2 :])
    assert second < first / 2
    plain = next_token_ranks(replace(config, start="random"), 0)
    assert np.median(plain[LENGTH // 2 :]) > 2 * second


def test_the_parameter_tree_is_that_of_a_random_start():
    induction = jax.eval_shape(lambda: qwen_vl.init(MODEL, jax.random.key(0)))
    assert induction == qwen_vl.shapes(MODEL)


def test_one_layer_is_too_few():
    with pytest.raises(UserError, match="two layers"):
        qwen_vl.init(replace(MODEL, layers=1), jax.random.key(0))
