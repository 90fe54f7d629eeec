"""The losses: supervised cross-entropy and the clipped policy objective with its KL and entropy terms."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.update.logprobs import TokenStats


@dataclass(frozen=True)
class PolicyConfig:
    """The paper's release: clip 0.2, dual clip 3, k3 at 0.001, entropy bonus 0.001, mean over tokens. The settings of
    other papers are listed in docs/recipe.md, "Algorithms"."""

    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = bounded(0.2, min=0.0, max=1.0)
    clip_high: float = bounded(0.2, min=0.0)
    dual_clip: float = bounded(3.0, min=0.0)  # 0: off
    aggregate: Literal["token", "sequence", "constant"] = "token"
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_weight: float = bounded(0.001, min=0.0)
    entropy_weight: float = bounded(0.001, min=0.0)
    surrogate: Literal["ppo", "cispo"] = "ppo"  # "cispo" clips the weight of a token's gradient, and stops none
    kl_clamp: float = bounded(0.0, min=0.0)  # the most that k3 of a token counts; 0: all of it
    # What the ratio compares the policy with: log-probs that the trainer has computed before the first update, or those
    # that the sampler has written down.
    old_logprobs: Literal["trainer", "sampler"] = "trainer"
    # Weighs the loss of each token by the trainer's probability over the sampler's, of the token or of its completion,
    # but by no more than the cap.
    correction: Literal["none", "token", "sequence"] = "none"
    correction_cap: float = bounded(2.0, above=0.0)

    def __post_init__(self) -> None:
        if self.kl_clamp and self.kl != "k3":
            raise UserError(
                f"kl_clamp is {self.kl_clamp:g} and kl {self.kl}: it is k3 that is clamped; set kl_clamp=0."
            )
        if self.correction != "none" and self.old_logprobs == "sampler":
            raise UserError(
                f"correction={self.correction} compares the trainer's log-probs with the sampler's, and the ratio has "
                "the sampler's already with old_logprobs=sampler: set one of the two back."
            )
        if 0.0 < self.dual_clip <= 1.0:
            raise UserError(f"dual_clip is {self.dual_clip}: set it above 1, or to 0 for none.")


def policy_warnings(config: PolicyConfig) -> list[str]:
    """What a policy update would not do although it is asked for."""
    if config.kl_weight and config.kl == "k1":
        return [
            "policy.kl=k1 has a gradient of 0 on average, so that the KL term does not hold the policy near its "
            "reference: set k2 or k3, or kl_weight=0"
        ]
    return []


def cross_entropy(
    stats: TokenStats, weights_BxL: Float[Array, "B L"], total: Float[Array, ""], z_weight: float
) -> Float[Array, ""]:
    """Cross-entropy summed over weighted tokens, over `total` (the weights of the whole batch, so that micro-batches
    sum to the batch's mean), plus z_weight · logZ² (PaLM, arXiv 2204.02311, section 5). Nats, fp32."""
    loss = -stats.logprob
    if z_weight:
        loss = loss + jnp.float32(z_weight) * jnp.square(stats.logz)
    return jnp.sum(loss * weights_BxL) / total


def kl_estimate(logprob: Array, ref_logprob: Array, kind: Literal["k1", "k2", "k3"], clamp: float = 0.0) -> Array:
    """Per-token estimate of KL(policy ‖ reference) from samples of the policy (Schulman 2020,
    http://joschu.net/blog/kl-approx.html): k1 the log-ratio, k2 half its square, k3 r − 1 − log r with r the
    reference's probability over the policy's. With `clamp`, k3 is that at most, with no gradient from there on.

    In a loss, k2 has the divergence's gradient, k3 that of KL(reference ‖ policy), and k1's is 0 on average: the mean
    of ∇ log π.
    """
    log_ratio = ref_logprob - logprob
    if clamp:
        reached = log_ratio > 1.0 + math.log1p(
            clamp
        )  # k3 is more than the clamp there, and may be more than fp32 holds
        k3 = jnp.expm1(jnp.where(reached, 0.0, log_ratio)) - log_ratio
        return jnp.where(reached, jnp.float32(clamp), jnp.minimum(k3, jnp.float32(clamp)))
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
    """Per-token clipped objective as a loss, and 1 where the clip was active, else 0.

    "ppo": PPO, arXiv 1707.06347, eq. 7, with the dual clip of arXiv 1912.09729, eq. 5. "cispo": the log-prob, weighted
    by the clipped ratio as a constant (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5); it has no dual clip.
    """
    ratio = probability_ratio(logprob, old_logprob, mask, config.ratio)
    clipped_ratio = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    if config.surrogate == "cispo":
        loss = -jax.lax.stop_gradient(clipped_ratio) * advantages * logprob
        return loss, (clipped_ratio != ratio).astype(jnp.float32)
    loss = jnp.maximum(-advantages * ratio, -advantages * clipped_ratio)
    clipped = -advantages * clipped_ratio > -advantages * ratio
    if config.dual_clip:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * jnp.float32(config.dual_clip)), loss)
    return loss, clipped.astype(jnp.float32)


def probability_ratio(
    logprob: Float[Array, "B L"],
    old_logprob: Float[Array, "B L"],
    mask: Bool[Array, "B L"],
    level: Literal["token", "sequence"],
) -> Float[Array, "B L"]:
    """The policy's probability over the old policy's, of each token, or the length-normalised one of the completion
    (GSPO, arXiv 2507.18071, eq. 7) on each of its tokens."""
    log_ratio = jnp.where(mask, logprob - old_logprob, 0.0)
    if level == "sequence":
        log_ratio = jnp.broadcast_to(_row_mean(log_ratio, mask)[:, None], mask.shape)
    return jnp.exp(log_ratio)


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
