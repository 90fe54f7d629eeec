"""The sampling rule. The distribution is made in one place, for the sampler and for the trainer alike."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float, Int

from chestx_jax.types import Array

FORBIDDEN = -1e30  # finite, so that p · log p is 0 with a gradient of 0


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn. Log-probs are always of softmax(logits / temperature) over the allowed ids, before
    top-p and top-k, on both sides; with truncation on, the sampler is therefore off-policy by what it cut away."""

    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    length: int = 2048  # most tokens of a completion, the end token included
    group: int = 8  # completions per prompt


@struct.dataclass
class Vocabulary:
    """What sampling must know of the tokenizer: `allowed` ids may stand in a completion (image pads and the
    vocabulary's padding rows may not), `stop_ids` end it; the rest of a row is filled with the first of them."""

    allowed: Bool[Array, " V"]
    stop_ids: Int[Array, " N"]


def distribution(
    logits_BxLxV: Float[Array, "B L V"], allowed_V: Bool[Array, " V"], temperature: float
) -> Float[Array, "B L V"]:
    """fp32 log-probabilities of the next token: ids that no completion may hold (image pads, padding rows of the
    vocabulary) removed, temperature applied (0 counts as 1: greedy picks from the plain distribution)."""
    scaled = logits_BxLxV.astype(jnp.float32) / jnp.float32(temperature or 1.0)
    return jax.nn.log_softmax(jnp.where(allowed_V[None, None], scaled, FORBIDDEN), axis=-1)


def sample(
    logprobs_BxV: Float[Array, "B V"], key: Array, sampling: SamplingConfig
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """One id per row and its log-prob under `logprobs_BxV`."""
    if sampling.temperature == 0.0:
        ids = jnp.argmax(logprobs_BxV, axis=-1).astype(jnp.int32)
    else:
        kept = _truncated(logprobs_BxV, sampling)
        ids = jax.random.categorical(key, kept, axis=-1).astype(jnp.int32)
    return ids, jnp.take_along_axis(logprobs_BxV, ids[:, None], axis=-1)[:, 0]


def _truncated(logprobs_BxV: Array, sampling: SamplingConfig) -> Array:
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
