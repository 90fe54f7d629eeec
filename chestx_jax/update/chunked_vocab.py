"""Statistics of given tokens with the vocabulary taken part by part: scores exist for one part at a time, forward and
backward, and a head that is split over chips is gathered and its gradient scattered once, however many tokens there
are (taking the tokens part by part would move the whole head for each of their parts)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.rollout.sampling import FORBIDDEN

SHARES = 8  # each part takes as much of every eighth of the vocabulary: a head split over up to 8 chips stays in place


class _Seen(NamedTuple):
    """Over the vocabulary so far, fp32 [B, L]."""

    logz: Array  # of the raw scores
    norm: Array  # log of the partition function of the distribution
    mean: Array  # the distribution's mean score
    chosen: Array  # the target's score


def vocabulary_stats(
    config: ModelConfig,
    params,
    hidden_BxLxD: Float[Array, "B L D"],
    targets_BxL: Int[Array, "B L"],
    allowed_V: Bool[Array, " V"],
    temperature: float,
    parts: int,
) -> tuple[Array, Array, Array]:
    """Log-prob of the targets, entropy, and log of the partition function of the raw scores, each fp32 [B, L]: those
    of `rollout.sampling.distribution`, over `parts` parts of the vocabulary."""
    head_DxV = qwen_vl.output_matrix(config, params)
    size = -(-config.vocab_size // (SHARES * parts))  # columns of a share of a part
    missing = SHARES * parts * size - config.vocab_size
    heads = _split(jnp.pad(head_DxV, ((0, 0), (0, missing))), parts)
    allowed = _split(jnp.pad(allowed_V, (0, missing))[None], parts)[:, 0]
    real = _split(jnp.pad(jnp.ones_like(allowed_V), (0, missing))[None], parts)[:, 0]
    share, within = jnp.divmod(targets_BxL, jnp.int32(parts * size))
    part_BxL, column = jnp.divmod(within, jnp.int32(size))
    column_BxL = share * jnp.int32(size) + column
    hidden32 = hidden_BxLxD.astype(jnp.float32)  # so that its gradient is summed over the parts in fp32

    @jax.checkpoint
    def add(seen: _Seen, part: tuple[Array, ...]) -> tuple[_Seen, None]:
        number, head, allowed_W, real_W = part
        raw = qwen_vl.head_logits(hidden32.astype(hidden_BxLxD.dtype), head)
        scaled = jnp.where(allowed_W[None, None], raw / jnp.float32(temperature or 1.0), FORBIDDEN)
        norm = jax.nn.logsumexp(scaled, axis=-1)
        mean = jnp.sum(jnp.exp(scaled - norm[..., None]) * scaled, axis=-1)
        both = jnp.logaddexp(seen.norm, norm)
        chosen = jnp.take_along_axis(scaled, column_BxL[..., None], axis=-1)[..., 0]
        return _Seen(
            logz=jnp.logaddexp(seen.logz, jax.nn.logsumexp(jnp.where(real_W[None, None], raw, FORBIDDEN), axis=-1)),
            norm=both,
            mean=seen.mean * jnp.exp(seen.norm - both) + mean * jnp.exp(norm - both),
            chosen=jnp.where(part_BxL == number, chosen, seen.chosen),
        ), None

    nothing = jnp.full(targets_BxL.shape, FORBIDDEN, jnp.float32)
    start = _Seen(logz=nothing, norm=nothing, mean=jnp.zeros_like(nothing), chosen=nothing)
    numbers = jnp.arange(parts, dtype=jnp.int32)
    seen, _ = jax.lax.scan(add, start, (numbers, heads, allowed, real))
    return seen.chosen - seen.norm, seen.norm - seen.mean, seen.logz


def _split(x_ZxV: Array, parts: int) -> Array:
    """[Z, V] → [parts, Z, V / parts], each part with an equal stretch of every share."""
    rows, width = x_ZxV.shape
    x = x_ZxV.reshape(rows, SHARES, parts, width // (SHARES * parts))
    return jnp.moveaxis(x, 2, 0).reshape(parts, rows, -1)
