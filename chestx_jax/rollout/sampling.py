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
        ids = _draw(truncated, jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B))
    return ids, jnp.take_along_axis(logprobs_BxV, ids[:, None], axis=-1)[:, 0]


def _draw(logprobs_BxV: Array, uniform_Bx2: Float[Array, "B 2"]) -> Int[Array, " B"]:
    """One id a row, of a probability in proportion to exp(log-prob), by two uniform numbers: the first chooses a block
    of the vocabulary by its mass, the second an id in it. A number for each id, as Gumbel's trick needs, costs more
    than everything else that is computed from the logits; and sums by block stay on the device that holds the block."""
    rows, size = logprobs_BxV.shape
    blocks = math.gcd(size, MOST_BLOCKS)
    mass_BxKxZ = jnp.exp(logprobs_BxV - jnp.max(logprobs_BxV, axis=-1, keepdims=True)).reshape(rows, blocks, -1)
    block_B = _invert(jnp.sum(mass_BxKxZ, axis=-1), uniform_Bx2[:, 0])
    chosen = jnp.arange(blocks)[None, :, None] == block_B[:, None, None]
    place_B = _invert(jnp.sum(jnp.where(chosen, mass_BxKxZ, 0.0), axis=1), uniform_Bx2[:, 1])
    return block_B * jnp.int32(size // blocks) + place_B


def _invert(mass_BxZ: Array, uniform_B: Float[Array, " B"]) -> Int[Array, " B"]:
    """The first place a row up to which its mass exceeds that share of the whole; never one without mass, whatever the
    sums are rounded to."""
    before = jnp.cumsum(mass_BxZ, axis=-1)
    reached = (before > uniform_B[:, None] * before[:, -1:]) & (mass_BxZ > 0)
    last = jnp.where(mass_BxZ > 0, jnp.arange(mass_BxZ.shape[-1])[None], 0)  # where rounding leaves none
    return jnp.where(reached.any(axis=-1), jnp.argmax(reached, axis=-1), jnp.max(last, axis=-1)).astype(jnp.int32)


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
