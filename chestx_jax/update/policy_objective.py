"""The objective of a policy update, as a function of log-probs, and what is logged of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from chestx_jax.update.importance import log_importance_ratio, truncated_weights
from chestx_jax.update.logprobs import TokenStats
from chestx_jax.update.losses import PolicyConfig, kl_estimate, policy_loss, probability_ratio
from chestx_jax.update.micro_batches import Logprobs, MicroBatch

FINITE = 1e30  # of a ratio that is logged


class ObjectiveMetrics(NamedTuple):
    """fp32. Means are over the tokens in the loss of the whole step: micro-batches add up. Maxima are none below 0."""

    means: dict[str, Float[Array, ""]]
    maxima: dict[str, Float[Array, ""]]


def policy_objective(
    config: PolicyConfig, stats: TokenStats, part: MicroBatch, logprobs: Logprobs
) -> tuple[Float[Array, ""], ObjectiveMetrics]:
    """What a micro-batch adds to the loss: the clipped policy objective, minus the entropy bonus, plus the KL penalty,
    each token with its weight (DeepSeekMath, arXiv 2402.03300, equation 3).

    Logged, besides the terms of the loss: the `ratio` of the policy's probability to the old policy's, the share of
    `clipped` tokens, the `advantage`, how far the trainer's log-probs are from the sampler's (`sampler_drift`), and
    with `correction` the `importance` weight and the share of tokens where it is cut off.
    """
    mask, now = part.mask, jax.lax.stop_gradient(stats.logprob)
    sampled = part.rollout.logprobs
    trainer = now if logprobs.old is None else logprobs.old
    old = sampled if config.old_logprobs == "sampler" else trainer
    mean = lambda x: jnp.sum(jnp.where(mask, x, 0.0) * part.mean_weights)  # noqa: E731
    largest = lambda x: jnp.max(jnp.where(mask, x, 0.0))  # noqa: E731

    surrogate, clipped = policy_loss(stats.logprob, old, part.advantages, mask, config)
    ratio, drift = probability_ratio(now, old, mask, config.ratio), jnp.abs(trainer - sampled)
    means = {"clipped": clipped, "ratio": ratio, "advantage": part.advantages, "sampler_drift": drift}
    maxima = {"ratio_max": ratio, "advantage_max": jnp.abs(part.advantages), "sampler_drift_max": drift}
    if config.correction != "none":
        log_ratio = log_importance_ratio(trainer, sampled, mask, config.correction)
        importance = truncated_weights(log_ratio, config.correction_cap)
        surrogate = surrogate * importance
        means["importance"] = importance
        means["importance_truncated"] = (log_ratio > jnp.log(jnp.float32(config.correction_cap))).astype(jnp.float32)
        maxima["importance_max"] = truncated_weights(log_ratio, FINITE)

    objective = surrogate - jnp.float32(config.entropy_weight) * stats.entropy
    means |= {"policy_loss": surrogate, "entropy": stats.entropy}
    if logprobs.reference is not None:
        means["kl"] = kl_estimate(stats.logprob, logprobs.reference, config.kl, config.kl_clamp)
        objective = objective + jnp.float32(config.kl_weight) * means["kl"]
    value = jnp.sum(jnp.where(mask, objective, 0.0) * part.weights)
    logged = {name: mean(x) for name, x in means.items()} | {"loss": value}
    return value, ObjectiveMetrics(logged, {name: largest(x) for name, x in maxima.items()})
