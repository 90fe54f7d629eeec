"""Importance weights that correct for a sampler whose log-probs are not quite the trainer's.

The same weights give other log-probs in other kernels, another precision or another layout: what is sampled is then
from another policy than the one whose gradient is taken.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def log_importance_ratio(
    trainer_logprob: Float[Array, "B L"],
    sampler_logprob: Float[Array, "B L"],
    mask: Bool[Array, "B L"],
    level: Literal["token", "sequence"],
) -> Float[Array, "B L"]:
    """Log of the trainer's probability over the sampler's: of each token, or of the completion on each of its tokens; 0
    outside of the mask."""
    log_ratio = jnp.where(mask, trainer_logprob - sampler_logprob, 0.0)
    if level == "sequence":
        log_ratio = jnp.where(mask, jnp.sum(log_ratio, axis=1, keepdims=True), 0.0)
    return log_ratio


def truncated_weights(log_ratio: Float[Array, "B L"], cap: float) -> Float[Array, "B L"]:
    """The importance weight min(ratio, cap): truncated importance sampling (Ionides 2008; for sampler and trainer, Yao
    et al. 2025, https://fengyao.notion.site/off-policy-rl). No ratio is too large to be computed."""
    return jnp.exp(jnp.minimum(log_ratio, jnp.log(jnp.float32(cap))))
