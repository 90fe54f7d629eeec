"""The losses: supervised cross-entropy and the clipped policy objective with its KL and entropy terms."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.update.logprobs import TokenStats


@dataclass(frozen=True)
class PolicyConfig:
    """The paper's release: clip 0.2, dual clip 3, k3 at 0.001, entropy bonus 0.001, mean over tokens. DAPO: clip_high
    0.28; GSPO: ratio "sequence", aggregate "sequence"; Dr.GRPO: aggregate "constant"."""

    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = bounded(0.2, min=0.0, max=1.0)
    clip_high: float = bounded(0.2, min=0.0)
    dual_clip: float = bounded(3.0, min=0.0)  # 0: off
    aggregate: Literal["token", "sequence", "constant"] = "token"
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_weight: float = bounded(0.001, min=0.0)
    entropy_weight: float = bounded(0.001, min=0.0)

    def __post_init__(self) -> None:
        if 0.0 < self.dual_clip <= 1.0:
            raise UserError(f"dual_clip is {self.dual_clip}: set it above 1, or to 0 for none.")


def cross_entropy(
    stats: TokenStats, weights_BxL: Float[Array, "B L"], total: Float[Array, ""], z_weight: float
) -> Float[Array, ""]:
    """Cross-entropy summed over weighted tokens, over `total` (the weights of the whole batch, so that micro-batches
    sum to the batch's mean), plus z_weight · logZ² (PaLM, arXiv 2204.02311, section 5). Nats, fp32."""
    loss = -stats.logprob
    if z_weight:
        loss = loss + jnp.float32(z_weight) * jnp.square(stats.logz)
    return jnp.sum(loss * weights_BxL) / total


def kl_estimate(logprob: Array, ref_logprob: Array, kind: Literal["k1", "k2", "k3"]) -> Array:
    """Per-token estimate of KL(policy ‖ reference) from samples of the policy (Schulman 2020,
    http://joschu.net/blog/kl-approx.html): k1 the log-ratio, k2 half its square, k3 r − 1 − log r with r the
    reference's probability over the policy's."""
    log_ratio = ref_logprob - logprob
    if kind == "k1":
        return -log_ratio
    if kind == "k2":
        return 0.5 * jnp.square(log_ratio)
    return jnp.expm1(log_ratio) - log_ratio


def policy_loss(
    logprob: Float[Array, "B L"],
    old_logprob: Float[Array, "B L"],
    advantages: Float[Array, "B L"],
    mask: Bool[Array, "B L"],
    config: PolicyConfig,
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Per-token clipped objective (PPO, arXiv 1707.06347, eq. 7; dual clip arXiv 1912.09729, eq. 5) as a loss, and
    1 where the clip was active, else 0. With ratio "sequence" the ratio is the length-normalised one of the completion
    (GSPO, arXiv 2507.18071)."""
    log_ratio = jnp.where(mask, logprob - old_logprob, 0.0)
    if config.ratio == "sequence":
        log_ratio = jnp.broadcast_to(_row_mean(log_ratio, mask)[:, None], mask.shape)
    ratio = jnp.exp(log_ratio)
    clipped_ratio = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    loss = jnp.maximum(-advantages * ratio, -advantages * clipped_ratio)
    clipped = -advantages * clipped_ratio > -advantages * ratio
    if config.dual_clip:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * jnp.float32(config.dual_clip)), loss)
    return loss, clipped.astype(jnp.float32)


def token_weights(mask: Bool[Array, "B L"], kind: Literal["token", "sequence", "constant"]) -> Float[Array, "B L"]:
    """Weights whose sum with per-token terms is the batch's mean: "token" over all tokens in the mask, "sequence" over
    sequences of each one's token mean, "constant" over rows times the length limit, whatever the lengths (Dr.GRPO,
    arXiv 2503.20783). They sum to at most 1; compute them for the whole batch, before it is split into micro-batches.
    """
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
