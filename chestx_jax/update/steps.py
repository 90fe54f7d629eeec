"""The two training steps, supervised and GRPO: pure functions (state, batch) → (state, metrics)."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.sharding import split_interleaved
from chestx_jax.types import Batch
from chestx_jax.update.logprobs import completion_stats, token_stats
from chestx_jax.update.losses import PolicyConfig, cross_entropy
from chestx_jax.update.micro_batches import Logprobs, MicroBatch
from chestx_jax.update.optimizer import where
from chestx_jax.update.policy_objective import policy_objective
from chestx_jax.update.rounding import apply_updates
from chestx_jax.update.state import TrainState, step_key

DROPOUT_STREAM, ROUNDING_STREAM = 2, 3  # keep these uses of a step's key apart from each other and from any other


@struct.dataclass
class Gradients:
    """Gradients of the trained parameters and metrics, fp32, summed over micro-batches; and the largest values."""

    params: dict
    metrics: dict[str, Float[Array, ""]]
    maxima: dict[str, Float[Array, ""]]


def sft_step(
    config: ModelConfig,
    transform: optax.GradientTransformationExtraArgs,
    z_weight: float,
    micro_batches: int,
    state: TrainState,
    batch: Batch,
    allowed_V: Bool[Array, " V"],
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step on a packed batch. Metrics, fp32: loss (nats per weighted token), norms, and how
    many `tokens` are no padding."""
    total = jnp.maximum(jnp.sum(batch.weights), 1.0)
    tuning = config.tuning
    has_dropout = tuning.dropout > 0 and not lora.fully_trainable(config)
    dropout_key = step_key(tuning.seed, state.step, DROPOUT_STREAM) if has_dropout else None

    def loss(params, micro_batch: Batch):
        value = sft_loss(config, params, micro_batch, allowed_V, total, z_weight, dropout_key)
        return value, {"loss": value}

    grads, metrics = accumulate_gradients(loss, state.params, batch, micro_batches)
    state, norms = apply_gradients(transform, state, grads, metrics["loss"], tuning.seed)
    return state, {**metrics, **norms, "tokens": jnp.sum((batch.tokens.segments != 0).astype(jnp.float32))}


def sft_loss(
    config: ModelConfig,
    params,
    batch: Batch,
    allowed_V: Array,
    total: Array,
    z_weight: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, ""]:
    """The supervised loss of packed rows, in which position l predicts the id at l + 1: the weighted sum over tokens,
    over `total`, the weight of the whole batch."""
    hidden = qwen_vl.forward(config, params, batch.tokens, batch.images, dropout_key)
    targets, weights = (jnp.roll(x, -1, axis=1) for x in (batch.tokens.ids, batch.weights))
    last = jnp.arange(weights.shape[1]) == weights.shape[1] - 1
    stats = token_stats(config, params, hidden, targets, allowed_V)
    return cross_entropy(stats, jnp.where(last[None], 0.0, weights), total, z_weight)


def grpo_gradients(
    config: ModelConfig,
    policy: PolicyConfig,
    temperature: float,
    params,
    total: Gradients | None,
    part: MicroBatch,
    logprobs: Logprobs,
    allowed_V: Bool[Array, " V"],
) -> Gradients:
    """What a micro-batch adds to the gradients of a policy update (`policy_objective`).

    `temperature` is the sampler's; `total` is of the micro-batches before it (None: it is the first).
    """

    def loss(params):
        rollout = part.rollout
        stats = completion_stats(config, params, part.prompts, rollout.ids, rollout.length, allowed_V, temperature)
        return policy_objective(policy, stats, part, logprobs)

    grads, metrics = jax.grad(loss, has_aux=True)(params)
    new = Gradients(optax.tree.cast(lora.trained(config, grads), jnp.float32), metrics.means, metrics.maxima)
    if total is None:
        return new
    maxima = jax.tree.map(jnp.maximum, total.maxima, new.maxima)
    return jax.tree.map(jnp.add, total, new).replace(maxima=maxima)


def grpo_step(
    config: ModelConfig,
    transform: optax.GradientTransformationExtraArgs,
    state: TrainState,
    total: Gradients,
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step from the gradients of all of its micro-batches; metrics are theirs and the norms."""
    grads = lora.with_frozen_zeros(total.params, state.params)
    state, norms = apply_gradients(transform, state, grads, total.metrics["loss"], config.tuning.seed)
    return state, {**total.metrics, **total.maxima, **norms}


def accumulate_gradients(loss, params, batch, micro_batches: int):
    """Gradients and metrics of `loss`, summed in fp32 over micro-batches of interleaved rows. `loss` normalises by the
    whole batch, so that the sum equals the value of one large batch."""
    differentiate = jax.grad(loss, has_aux=True)
    if micro_batches == 1:
        return differentiate(params, batch)
    prompts = min(leaf.shape[0] for leaf in jax.tree.leaves(batch))

    micro = jax.tree.map(lambda x: split_interleaved(x, micro_batches, x.shape[0] // prompts), batch)
    zeros = jax.eval_shape(differentiate, params, jax.tree.map(lambda x: x[0], micro))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), zeros)
    add_leaf = lambda total, part: total + part.astype(jnp.float32)  # noqa: E731
    add = lambda total, part: (jax.tree.map(add_leaf, total, differentiate(params, part)), None)  # noqa: E731
    total, _ = jax.lax.scan(add, zeros, micro)
    return total


def apply_gradients(
    transform: optax.GradientTransformationExtraArgs, state: TrainState, grads, loss: Float[Array, ""], seed: int
) -> tuple[TrainState, dict[str, Array]]:
    """The state after one optimizer step; the norms of the gradient and of the update, and how many steps were skipped.

    Where the loss or the gradient's norm is not finite, parameters and moments stay as they are; the step counts all
    the same, so that the randomness and the data of the next do not depend on it. `seed` is that of the rounding of
    bfloat16 parameters.
    """
    grads = optax.tree.cast(grads, jnp.float32)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    updates, moments = transform.update(grads, state.moments, state.params, finite=finite)
    params = apply_updates(state.params, updates, step_key(seed, state.step, ROUNDING_STREAM))
    params = where(finite, params, state.params)
    skip = (~finite).astype(jnp.int32)
    skipped, in_a_row = state.skipped + skip, (state.skipped_in_a_row + skip) * skip
    update_norm = jnp.where(finite, optax.tree.norm(updates), 0.0)
    norms = {"grad_norm": grad_norm, "update_norm": update_norm}
    return (
        TrainState(step=state.step + 1, params=params, moments=moments, skipped=skipped, skipped_in_a_row=in_a_row),
        {**norms, "skipped": skipped, "skipped_in_a_row": in_a_row},
    )
