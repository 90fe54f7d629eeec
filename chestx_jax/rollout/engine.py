"""Generation: each prompt is prefilled once for its group, then one loop decodes until all completions have ended."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import Cache
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary, next_token_logprobs, sample
from chestx_jax.sharding import constrain, merge_interleaved, split_interleaved
from chestx_jax.types import Prompts, Rollout


class _State(NamedTuple):
    step: Int[Array, ""]  # tokens sampled so far, the same for all rows
    ids: Int[Array, "B L"]
    logprobs: Float[Array, "B L"]
    done: Bool[Array, " B"]
    length: Int[Array, " B"]
    cache: Cache  # keys and values of the sampled tokens


def generate(
    config: ModelConfig,
    sampling: SamplingConfig,
    params,
    prompts: Prompts,
    vocabulary: Vocabulary,
    key: Array,
    emit: Callable | None = None,
    parts: int = 1,
) -> Rollout:
    """Samples G = `sampling.group` completions of each prompt, completion b of prompt b // G.

    A row ends with the first id in `vocabulary.stop_ids` (counted in `length`); after it `ids` hold the first stop id
    and `logprobs` 0. `logprobs` are fp32, of `rollout.sampling.next_token_logprobs`. The result is a function of `key`.
    `emit(step, ids_B, live_B)`, where given, is called on the host for every sampled column. With `parts`, that many
    parts of the prompts are sampled one after the other, each with a key of its own: the caches are smaller by that
    factor, and the weights are read that many times.
    """
    if parts > 1:
        split = jax.tree.map(lambda x: split_interleaved(x, parts), prompts), jax.random.split(key, parts)
        rollouts = jax.lax.map(
            lambda part: generate(config, sampling, params, part[0], vocabulary, part[1], emit), split
        )
        return jax.tree.map(lambda x: merge_interleaved(x, sampling.group), rollouts)
    last_Nx1xD, prompt_cache = _prefill(config, params, prompts)
    group, length = sampling.group, sampling.length
    rows = last_Nx1xD.shape[0] * group
    start_B = jnp.repeat(next_position(prompts), group)

    def sample_next(hidden_Bx1xD: Array, step: Array) -> tuple[Array, Array]:
        logits_Bx1xV = qwen_vl.logits(config, params, hidden_Bx1xD)
        logprobs_Bx1xV = next_token_logprobs(logits_Bx1xV, vocabulary.allowed, sampling.temperature)
        return sample(logprobs_Bx1xV[:, 0], jax.random.fold_in(key, step), sampling)

    def append(state: _State, ids_B: Array, logprobs_B: Array) -> _State:
        live = ~state.done
        if emit is not None:
            jax.debug.callback(emit, state.step, ids_B, live)
        ids_B = jnp.where(live, ids_B, vocabulary.stop_ids[0])
        column = jnp.where(live, logprobs_B, jnp.float32(0.0))
        ended = jnp.any(ids_B[:, None] == vocabulary.stop_ids[None], axis=-1)
        return state._replace(
            step=state.step + 1,
            ids=jax.lax.dynamic_update_slice_in_dim(state.ids, ids_B[:, None], state.step, axis=1),
            logprobs=jax.lax.dynamic_update_slice_in_dim(state.logprobs, column[:, None], state.step, axis=1),
            done=state.done | ended,
            length=state.length + live.astype(jnp.int32),
        )

    def decode(state: _State) -> _State:
        last = state.step - 1  # index of the token sampled last, which the model reads now
        ids_Bx1 = jax.lax.dynamic_slice_in_dim(state.ids, last, 1, axis=1)
        hidden, (k, v) = qwen_vl.extend(
            config, params, ids_Bx1, (start_B + last)[:, None], jnp.ones_like(ids_Bx1), (prompt_cache, state.cache)
        )
        slot = _after(last, hidden)
        cache = Cache(
            k=jax.lax.dynamic_update_slice_in_dim(state.cache.k, k, slot, axis=3),
            v=jax.lax.dynamic_update_slice_in_dim(state.cache.v, v, slot, axis=3),
            valid=state.cache.valid | (jnp.arange(length) == last)[None],
        )
        return append(state._replace(cache=cache), *sample_next(hidden, state.step))

    empty = _State(
        step=jnp.int32(0),
        ids=jnp.full((rows, length), vocabulary.stop_ids[0], jnp.int32),
        logprobs=jnp.zeros((rows, length), jnp.float32),
        done=jnp.zeros((rows,), bool),
        length=jnp.zeros((rows,), jnp.int32),
        cache=_empty_cache(config, rows, length),
    )
    first = append(empty, *sample_next(jnp.repeat(last_Nx1xD, group, axis=0), jnp.int32(0)))
    final = jax.lax.while_loop(lambda s: (s.step < length) & ~jnp.all(s.done), decode, first)
    return Rollout(ids=final.ids, length=final.length, logprobs=final.logprobs, finished=final.done)


def _prefill(config: ModelConfig, params, prompts: Prompts) -> tuple[Float[Array, "N 1 D"], Cache]:
    """The hidden state at each prompt's last token, and the prompts' cache."""
    hidden_NxLxD, cache = qwen_vl.prefill(config, params, prompts.tokens, prompts.images)
    return jnp.take_along_axis(hidden_NxLxD, last_index(prompts)[:, None, None], axis=1), cache


def _after(index: Array, hidden_Bx1xD: Array) -> Array:
    """`index`, with a data dependency on `hidden`.

    It makes the last layer's read of the cache precede the write, so that XLA updates the cache in place; free to
    choose the order, it copies both caches, twice a token. (On CPUs an optimization barrier is dropped too early.)
    """
    finite = hidden_Bx1xD[0, 0, 0] < jnp.inf
    return jnp.maximum(index, jnp.where(finite, 0, -1).astype(index.dtype))


def next_position(prompts: Prompts) -> Int[Array, " N"]:
    """The M-RoPE position of the first token after each prompt: one past the largest so far (Qwen2-VL's rule)."""
    positions = jnp.where((prompts.tokens.segments != 0)[..., None], prompts.tokens.positions, -1)
    return jnp.max(positions, axis=(1, 2)) + 1


def last_index(prompts: Prompts) -> Int[Array, " N"]:
    """The index of each prompt's last token, whichever side it is padded on."""
    index = jnp.arange(prompts.tokens.segments.shape[1], dtype=jnp.int32)[None]
    return jnp.max(jnp.where(prompts.tokens.segments != 0, index, 0), axis=1)


def _empty_cache(config: ModelConfig, rows: int, length: int) -> Cache:
    shape = (config.layers, rows, config.kv_heads, length, config.head_width)
    zeros = constrain(jnp.zeros(shape, config.compute.dtype), None, "batch", "kv_heads", None, None)
    return Cache(k=zeros, v=zeros, valid=jnp.zeros((rows, length), bool))
