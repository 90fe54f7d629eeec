"""The losses: supervised cross-entropy and the clipped policy objective with its KL and entropy terms."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.update.logprobs import TokenStats


@dataclass(frozen=True)
class PolicyConfig:
    """The paper's release: clip 0.2, dual clip 3, k3 at 0.001, entropy bonus 0.001, mean over tokens. DAPO: clip_high
    0.28; GSPO: ratio "sequence", aggregate "sequence"; Dr.GRPO: aggregate "constant"."""

    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0  # 0: off
    aggregate: Literal["token", "sequence", "constant"] = "token"
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_weight: float = 0.001
    entropy_weight: float = 0.001


def supervised_loss(
    stats: TokenStats, weights_BxL: Float[Array, "B L"], total: Float[Array, ""], z_weight: float
) -> Float[Array, ""]:
    """Cross-entropy summed over weighted tokens, over `total` (the weights of the whole batch, so that accumulated
    micro-batches sum to one mean), plus z_weight · logZ² (PaLM, arXiv 2204.02311, section 5)."""
    loss = -stats.logprob
    if z_weight:
        loss = loss + jnp.float32(z_weight) * jnp.square(stats.logz)
    return jnp.sum(loss * weights_BxL) / total


def kl_estimate(logprob: Array, reference: Array, kind: Literal["k1", "k2", "k3"]) -> Array:
    """Per-token estimate of KL(policy ‖ reference) from samples of the policy (Schulman 2020): k1 log-ratio,
    k2 half its square, k3 r − 1 − log r with r the reference over the policy."""
    difference = reference - logprob
    if kind == "k1":
        return -difference
    if kind == "k2":
        return 0.5 * jnp.square(difference)
    return jnp.expm1(difference) - difference


def policy_terms(
    logprob: Float[Array, "B L"],
    old: Float[Array, "B L"],
    advantages: Float[Array, "B L"],
    mask: Bool[Array, "B L"],
    config: PolicyConfig,
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Per-token clipped objective (PPO, arXiv 1707.06347, eq. 7; dual clip arXiv 1912.09729, eq. 5) as a loss, and
    whether the clip was active. With ratio "sequence" it is GSPO's length-normalised ratio (arXiv 2507.18071)."""
    log_ratio = jnp.where(mask, logprob - old, 0.0)
    if config.ratio == "sequence":
        log_ratio = jnp.broadcast_to(_row_mean(log_ratio, mask)[:, None], mask.shape)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    loss = jnp.maximum(-advantages * ratio, -advantages * clipped)
    active = -advantages * clipped > -advantages * ratio
    if config.dual_clip:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * jnp.float32(config.dual_clip)), loss)
    return loss, active.astype(jnp.float32)


def token_weights(mask: Bool[Array, "B L"], kind: Literal["token", "sequence", "constant"]) -> Float[Array, "B L"]:
    """Weights that turn per-token terms into the batch's mean: over all tokens; over sequences of token means; or
    over rows times the row's length limit, whatever the lengths (Dr.GRPO, arXiv 2503.20783). They sum to at most 1
    and are made for the whole batch before it is split into micro-batches."""
    weights = mask.astype(jnp.float32)
    if kind == "token":
        return weights / jnp.maximum(jnp.sum(weights), 1.0)
    if kind == "constant":
        return weights / jnp.float32(weights.size)
    lengths = jnp.sum(weights, axis=1, keepdims=True)
    rows = jnp.maximum(jnp.sum((lengths > 0).astype(jnp.float32)), 1.0)
    return weights / jnp.maximum(lengths, 1.0) / rows


def _row_mean(x: Array, mask: Array) -> Array:
    weights = mask.astype(jnp.float32)
    return jnp.sum(x * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
