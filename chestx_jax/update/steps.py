"""The two training steps: supervised and GRPO. Pure functions of (state, batch) → (state, metrics)."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.sharding import split_interleaved
from chestx_jax.types import Batch, Prompts, Rollout
from chestx_jax.update.logprobs import completion_stats, token_stats
from chestx_jax.update.losses import PolicyConfig, kl_estimate, policy_terms, supervised_loss, token_weights
from chestx_jax.update.state import TrainState, key_at

DROPOUT_STREAM = 2  # keeps this randomness apart from any other use of a step's key


@struct.dataclass
class Experience:
    """What a policy update learns from. Log-probs are those of the sampled tokens, under the reference model (None
    without a KL term) and under the policy that sampled (None with one update per batch)."""

    prompts: Prompts
    rollout: Rollout
    advantages: Float[Array, "B L"]
    loss_mask: Bool[Array, " B"]  # False: the completion is left out of the loss
    ref_logprobs: Float[Array, "B L"] | None
    old_logprobs: Float[Array, "B L"] | None


@dataclass(frozen=True)
class OverlongConfig:
    """Completions cut off by the length limit: kept as they are, left out of the loss, or their reward lowered
    linearly over the last `buffer` tokens by up to `penalty` (DAPO, arXiv 2503.14476, eq. 13)."""

    rule: Literal["keep", "mask", "penalise"] = "keep"
    buffer: int = 0
    penalty: float = 1.0


def sft_step(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    z_weight: float,
    micro_batches: int,
    state: TrainState,
    batch: Batch,
    allowed_V: Bool[Array, " V"],
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step on a packed batch. Metrics, fp32: loss (nats per weighted token), norms, tokens."""
    total = jnp.maximum(jnp.sum(batch.weights), 1.0)
    tuning = config.tuning
    drops = tuning.dropout > 0 and not lora.fully_trainable(config)
    dropout = key_at(tuning.seed, state.step, DROPOUT_STREAM) if drops else None

    def loss(params, micro: Batch):
        value = supervised(config, params, micro, allowed_V, total, z_weight, dropout)
        return value, {"loss": value}

    grads, metrics = accumulated(loss, state.params, batch, micro_batches)
    state, extra = applied(transform, state, grads)
    return state, {**metrics, **extra, "tokens": jnp.sum(batch.weights)}


def supervised(
    config: ModelConfig,
    params,
    batch: Batch,
    allowed_V: Array,
    total: Array,
    z_weight: float = 0.0,
    dropout: Array | None = None,
) -> Array:
    """The supervised loss of packed rows: place l predicts the id at l + 1."""
    hidden = qwen_vl.forward(config, params, batch.tokens, batch.images, dropout)
    targets, weights = (jnp.roll(x, -1, axis=1) for x in (batch.tokens.ids, batch.weights))
    last = jnp.arange(weights.shape[1]) == weights.shape[1] - 1
    stats = token_stats(config, params, hidden, targets, allowed_V)
    return supervised_loss(stats, jnp.where(last[None], 0.0, weights), total, z_weight)


def grpo_step(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    policy: PolicyConfig,
    overlong: OverlongConfig,
    temperature: float,
    micro_batches: int,
    state: TrainState,
    experience: Experience,
    allowed_V: Bool[Array, " V"],
) -> tuple[TrainState, dict[str, Array]]:
    """One policy update on sampled completions. Metrics: each term of the loss, ratio and clip statistics, and how
    far the sampler's log-probs are from the trainer's."""
    length = experience.rollout.ids.shape[1]
    mask = jnp.arange(length)[None] < experience.rollout.length[:, None]
    mask = mask & experience.loss_mask[:, None]
    if overlong.rule == "mask":
        mask = mask & experience.rollout.finished[:, None]
    weights = token_weights(mask, policy.aggregate)
    share = token_weights(mask, "token")  # metrics are means over tokens whatever the loss averages over

    def loss(params, micro):
        part, mask, weights, share = micro
        stats = completion_stats(
            config, params, part.prompts, part.rollout.ids, part.rollout.length, allowed_V, temperature
        )
        old = jax.lax.stop_gradient(stats.logprob) if part.old_logprobs is None else part.old_logprobs
        surrogate, clipped = policy_terms(stats.logprob, old, part.advantages, mask, policy)
        objective = surrogate - jnp.float32(policy.entropy_weight) * stats.entropy
        mean = lambda x: jnp.sum(jnp.where(mask, x, 0.0) * share)  # noqa: E731
        drift = jnp.abs(stats.logprob - part.rollout.logprobs)
        metrics = {
            "policy_loss": mean(surrogate),
            "entropy": mean(stats.entropy),
            "clipped": mean(clipped),
            "sampler_drift": mean(drift),
        }
        if part.ref_logprobs is not None:
            divergence = kl_estimate(stats.logprob, part.ref_logprobs, policy.kl)
            objective = objective + jnp.float32(policy.kl_weight) * divergence
            metrics["kl"] = mean(divergence)
        value = jnp.sum(jnp.where(mask, objective, 0.0) * weights)
        return value, {**metrics, "loss": value}

    grads, metrics = accumulated(loss, state.params, (experience, mask, weights, share), micro_batches)
    state, extra = applied(transform, state, grads)
    return state, {**metrics, **extra}


def accumulated(loss, params, batch, micro_batches: int):
    """Gradients and metrics of `loss` summed over micro-batches; each takes every k-th row, so that the batch's
    sharding stays where it is. The losses are already normalised by the whole batch, so sums are right."""
    differentiate = jax.grad(loss, has_aux=True)
    if micro_batches == 1:
        return differentiate(params, batch)
    prompts = min(leaf.shape[0] for leaf in jax.tree.leaves(batch))

    micro = jax.tree.map(lambda x: split_interleaved(x, micro_batches, x.shape[0] // prompts), batch)
    zeros = jax.eval_shape(differentiate, params, jax.tree.map(lambda x: x[0], micro))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zeros)
    add = lambda total, part: (jax.tree.map(jnp.add, total, differentiate(params, part)), None)  # noqa: E731
    total, _ = jax.lax.scan(add, zeros, micro)
    return total


def applied(transform: optax.GradientTransformation, state: TrainState, grads) -> tuple[TrainState, dict[str, Array]]:
    """The state after one optimizer step, and the norms worth watching."""
    updates, moments = transform.update(grads, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
    return TrainState(step=state.step + 1, params=params, moments=moments), norms


def length_penalty(length_B: Array, limit: int, rule: OverlongConfig) -> Float[Array, " B"]:
    """What is taken from a completion's reward for nearing the limit; 0 unless the rule is "penalise"."""
    if rule.rule != "penalise":
        return jnp.zeros(length_B.shape, jnp.float32)
    over = (length_B - (limit - rule.buffer)).astype(jnp.float32) / jnp.float32(max(rule.buffer, 1))
    return jnp.float32(rule.penalty) * jnp.clip(over, 0.0, 1.0)
