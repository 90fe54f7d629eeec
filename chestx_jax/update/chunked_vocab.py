"""Token statistics with the vocabulary processed part by part: logits exist for one part at a time, forward and
backward. A head that is sharded over devices is gathered, and its gradient scattered, once for all tokens; chunks of
tokens would move the whole head once per chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.embedding import head_logits
from chestx_jax.rollout.sampling import MASKED_LOGIT

SHARDS = 8  # each part takes an equal stretch of every eighth of the vocabulary: up to 8 devices keep their columns


class _Running(NamedTuple):
    """Statistics over the parts so far, fp32 [B, L]."""

    logz: Array  # log of the partition function of the raw logits
    norm: Array  # log of the partition function of the distribution
    mean: Array  # the distribution's mean logit
    chosen: Array  # the target's logit


def chunked_token_stats(
    config: ModelConfig,
    params,
    hidden_BxLxD: Float[Array, "B L D"],
    targets_BxL: Int[Array, "B L"],
    allowed_V: Bool[Array, " V"],
    temperature: float,
    parts: int,
) -> tuple[Float[Array, "B L"], Float[Array, "B L"], Float[Array, "B L"]]:
    """Log-prob of the targets, entropy, and log of the partition function of the raw logits, fp32: those of
    `rollout.sampling.next_token_logprobs`, over `parts` parts of the vocabulary."""
    dtype = config.compute.dtype
    head_DxV = qwen_vl.output_matrix(config, params).astype(dtype)  # before it is gathered
    width = -(-config.vocab_size // (SHARDS * parts))  # columns that a part takes of a shard
    missing = SHARDS * parts * width - config.vocab_size
    heads = _split(jnp.pad(head_DxV, ((0, 0), (0, missing))), parts)
    allowed = _split(jnp.pad(allowed_V, (0, missing))[None], parts)[:, 0]
    real = _split(jnp.pad(jnp.ones_like(allowed_V), (0, missing))[None], parts)[:, 0]
    shard, within = jnp.divmod(targets_BxL, jnp.int32(parts * width))
    part_BxL, column = jnp.divmod(within, jnp.int32(width))
    column_BxL = shard * jnp.int32(width) + column
    hidden32 = hidden_BxLxD.astype(jnp.float32)  # so that its gradient is summed over the parts in fp32

    @jax.checkpoint
    def add(running: _Running, part: tuple[Array, ...]) -> tuple[_Running, None]:
        number, head, allowed_W, real_W = part
        logits = head_logits(hidden32, head, dtype)
        scaled = jnp.where(allowed_W[None, None], logits / jnp.float32(temperature or 1.0), MASKED_LOGIT)
        norm = jax.nn.logsumexp(scaled, axis=-1)
        mean = jnp.sum(jnp.exp(scaled - norm[..., None]) * scaled, axis=-1)
        both = jnp.logaddexp(running.norm, norm)
        chosen = jnp.take_along_axis(scaled, column_BxL[..., None], axis=-1)[..., 0]
        logz = jax.nn.logsumexp(jnp.where(real_W[None, None], logits, MASKED_LOGIT), axis=-1)
        return _Running(
            logz=jnp.logaddexp(running.logz, logz),
            norm=both,
            mean=running.mean * jnp.exp(running.norm - both) + mean * jnp.exp(norm - both),
            chosen=jnp.where(part_BxL == number, chosen, running.chosen),
        ), None

    nothing = jnp.full(targets_BxL.shape, MASKED_LOGIT, jnp.float32)
    start = _Running(logz=nothing, norm=nothing, mean=jnp.zeros_like(nothing), chosen=nothing)
    numbers = jnp.arange(parts, dtype=jnp.int32)
    total, _ = jax.lax.scan(add, start, (numbers, heads, allowed, real))
    return total.chosen - total.norm, total.norm - total.mean, total.logz


def _split(x_ZxV: Array, parts: int) -> Array:
    """[Z, V] → [parts, Z, V / parts], each part with an equal stretch of every shard."""
    rows, columns = x_ZxV.shape
    x = x_ZxV.reshape(rows, SHARDS, parts, columns // (SHARDS * parts))
    return jnp.moveaxis(x, 2, 0).reshape(parts, rows, -1)
