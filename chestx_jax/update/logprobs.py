"""Log-probs of given tokens, without holding the logits of whole rows over the whole vocabulary at once."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.rollout.engine import last_index, next_position
from chestx_jax.rollout.sampling import next_token_logprobs
from chestx_jax.types import Prompts
from chestx_jax.update.chunked_vocab import chunked_token_stats


@struct.dataclass
class TokenStats:
    """fp32, per predicted token."""

    logprob: Float[Array, "B L"]
    entropy: Float[Array, "B L"]
    logz: Float[Array, "B L"]  # log of the partition function of the raw logits, for the z-loss


def token_stats(
    config: ModelConfig,
    params,
    hidden_BxLxD: Float[Array, "B L D"],
    targets_BxL: Int[Array, "B L"],
    allowed_V: Bool[Array, " V"],
    temperature: float = 1.0,
) -> TokenStats:
    """Statistics of predicting `targets_BxL` from the hidden states at the same positions.

    With `compute.head_chunk`, logits exist for that many positions of a row at a time, forward and backward; with
    `compute.head_parts`, for one of that many parts of the vocabulary.
    """
    if config.compute.head_parts > 1:
        parts = config.compute.head_parts
        return TokenStats(
            *chunked_token_stats(config, params, hidden_BxLxD, targets_BxL, allowed_V, temperature, parts)
        )

    def stats(hidden: Array, targets: Array) -> TokenStats:
        logits = qwen_vl.logits(config, params, hidden)
        logprobs = next_token_logprobs(logits, allowed_V, temperature)
        chosen = jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
        return TokenStats(chosen, entropy, jax.nn.logsumexp(logits, axis=-1))

    chunk, length = config.compute.head_chunk, targets_BxL.shape[1]
    if not chunk or chunk >= length:
        return stats(hidden_BxLxD, targets_BxL)
    pad = -length % chunk
    hidden = jnp.pad(hidden_BxLxD, ((0, 0), (0, pad), (0, 0)))
    targets = jnp.pad(targets_BxL, ((0, 0), (0, pad)))
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)  # noqa: E731
    chunks = jax.lax.map(lambda pair: jax.checkpoint(stats)(*pair), (split(hidden), split(targets)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :length], chunks)


def completion_stats(
    config: ModelConfig,
    params,
    prompts: Prompts,
    ids_BxL: Int[Array, "B L"],
    length_B: Int[Array, " B"],
    allowed_V: Bool[Array, " V"],
    temperature: float,
) -> TokenStats:
    """Statistics of every completion token given its prompt, under the sampler's distribution at `temperature`. The
    prompt is computed once for its group; gradients flow through the shared keys and values."""
    hidden_NxLxD, shared = qwen_vl.prefill(config, params, prompts.tokens, prompts.images)
    rows, length = ids_BxL.shape
    group = rows // hidden_NxLxD.shape[0]
    last = jnp.take_along_axis(hidden_NxLxD, last_index(prompts)[:, None, None], axis=1)
    offsets = jnp.arange(length, dtype=jnp.int32)
    positions = jnp.repeat(next_position(prompts), group)[:, None] + offsets[None]
    segments = (offsets[None] < length_B[:, None]).astype(jnp.int32)
    hidden, _ = qwen_vl.extend(config, params, ids_BxL, positions, segments, (shared,))
    hidden = jnp.concatenate([jnp.repeat(last, group, axis=0), hidden[:, :-1]], axis=1)
    return token_stats(config, params, hidden, ids_BxL, allowed_V, temperature)
