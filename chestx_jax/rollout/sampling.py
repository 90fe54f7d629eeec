"""The sampling rule. The sampler and the trainer take the distribution from one function."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float, Int

from chestx_jax.config import bounded
from chestx_jax.types import Array

MOST_BLOCKS = 512  # of the vocabulary, when an id is drawn; a power of two
MASKED_LOGIT = -1e30  # finite, so that p · log p is 0 with a gradient of 0


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are sampled. Log-probs are those of softmax(logits / temperature) over the allowed ids, before
    top-p and top-k, in the sampler and in the trainer; with truncation the sampler is off-policy by the mass cut off.
    """

    temperature: float = bounded(1.0, min=0.0)  # 0: greedy
    top_p: float = bounded(1.0, above=0.0, max=1.0)
    top_k: int = bounded(0, min=0)  # 0: all
    length: int = bounded(2048, min=1)  # most tokens of a completion, the stop token included
    group: int = bounded(8, min=1)  # completions per prompt


@struct.dataclass
class Vocabulary:
    """What sampling needs of the tokenizer: `allowed` ids may occur in a completion (image pads and the vocabulary's
    padding rows may not), `stop_ids` end it; the rest of the row is filled with the first of them."""

    allowed: Bool[Array, " V"]
    stop_ids: Int[Array, " N"]


def next_token_logprobs(
    logits_BxLxV: Float[Array, "B L V"], allowed_V: Bool[Array, " V"], temperature: float
) -> Float[Array, "B L V"]:
    """fp32 log-probabilities of the next token over the allowed ids, at `temperature` (0, greedy, counts as 1)."""
    scaled = logits_BxLxV.astype(jnp.float32) / jnp.float32(temperature or 1.0)
    return jax.nn.log_softmax(jnp.where(allowed_V[None, None], scaled, MASKED_LOGIT), axis=-1)


def sample(
    logprobs_BxV: Float[Array, "B V"], keys_B: Array, sampling: SamplingConfig
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """One id per row, drawn with the row's own key, and its log-prob under `logprobs_BxV`."""
    if sampling.temperature == 0.0:
        ids = jnp.argmax(logprobs_BxV, axis=-1).astype(jnp.int32)
    else:
        truncated = _truncate(logprobs_BxV, sampling)
        ids = _draw(truncated, keys_B)
    return ids, jnp.take_along_axis(logprobs_BxV, ids[:, None], axis=-1)[:, 0]


def _draw(logprobs_BxV: Array, keys_B: Array) -> Int[Array, " B"]:
    """One id a row, of a probability in proportion to exp(log-prob): first a block of the vocabulary by its mass, then
    an id of the block, both by Gumbel's trick. In one draw it needs a random number for each id, which costs more than
    everything else that is computed from the logits. (An inverted cumulative sum needs one, but hangs on the rounding
    of the whole sum: in fp32 two ids of three thousand changed with the padding of the prompts, by this rule none.)"""
    rows, size = logprobs_BxV.shape
    blocks = math.gcd(size, MOST_BLOCKS)
    by_block_BxKxZ = logprobs_BxV.reshape(rows, blocks, -1)
    block_key, id_key = jnp.moveaxis(jax.vmap(jax.random.split)(keys_B), 1, 0)
    draw = jax.vmap(jax.random.categorical)
    block_B = draw(block_key, jax.nn.logsumexp(by_block_BxKxZ, axis=-1)).astype(jnp.int32)
    chosen = jnp.arange(blocks)[None, :, None] == block_B[:, None, None]
    of_block_BxZ = jnp.max(jnp.where(chosen, by_block_BxKxZ, -jnp.inf), axis=1)
    return block_B * jnp.int32(size // blocks) + draw(id_key, of_block_BxZ).astype(jnp.int32)


def _truncate(logprobs_BxV: Array, sampling: SamplingConfig) -> Array:
    """Top-k, then top-p (the smallest set of most likely ids whose mass reaches p) by value thresholds."""
    if sampling.top_k:
        floor = jax.lax.top_k(logprobs_BxV, min(sampling.top_k, logprobs_BxV.shape[-1]))[0][:, -1:]
        logprobs_BxV = jnp.where(logprobs_BxV >= floor, logprobs_BxV, -jnp.inf)
    if sampling.top_p < 1.0:
        ranked = jnp.sort(jax.nn.log_softmax(logprobs_BxV, axis=-1), axis=-1, descending=True)
        mass_before = jnp.cumsum(jnp.exp(ranked), axis=-1) - jnp.exp(ranked)
        kept = jnp.sum(mass_before < jnp.float32(sampling.top_p), axis=-1, keepdims=True)
        floor = jnp.take_along_axis(ranked, kept - 1, axis=-1)
        logprobs_BxV = jnp.where(jax.nn.log_softmax(logprobs_BxV, axis=-1) >= floor, logprobs_BxV, -jnp.inf)
    return logprobs_BxV
