"""Generation: prefill each prompt once, share its keys with the group, decode in one loop until all are done."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import Cache
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary, distribution, sample
from chestx_jax.sharding import constrain, merge_interleaved, split_interleaved
from chestx_jax.types import Prompts, Rollout


class _State(NamedTuple):
    step: Array  # tokens sampled so far, the same for all rows
    ids: Int[Array, "B L"]
    logprobs: Array
    done: Bool[Array, " B"]
    length: Int[Array, " B"]
    own: Cache  # keys and values of the sampled tokens


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
    """Samples `sampling.group` completions per prompt, completion b from prompt b // G.

    A row ends with the first id in `vocabulary.stop_ids` (counted in `length`) and is filled with the first of them.
    `logprobs` are fp32, of the distribution in `rollout.sampling.distribution`, 0 after the end. Deterministic in
    `key`. `emit`, where given, is called on the host with each column of ids as it is sampled (for showing them;
    training has none). With `parts`, so many parts of the prompts have their completions one after the other, each
    with a key of its own: the caches are smaller by as much, and the weights are read as many times more.
    """
    if parts > 1:
        turns = jax.tree.map(lambda x: split_interleaved(x, parts), prompts), jax.random.split(key, parts)
        found = jax.lax.map(lambda turn: generate(config, sampling, params, turn[0], vocabulary, turn[1], emit), turns)
        return jax.tree.map(lambda x: merge_interleaved(x, sampling.group), found)
    last_NxD, shared = _prefilled(config, params, prompts)
    group, length = sampling.group, sampling.length
    rows = last_NxD.shape[0] * group
    start_B = jnp.repeat(next_position(prompts), group)

    def drawn(hidden_Bx1xD: Array, step: Array) -> tuple[Array, Array]:
        scores = distribution(qwen_vl.logits(config, params, hidden_Bx1xD), vocabulary.allowed, sampling.temperature)
        return sample(scores[:, 0], jax.random.fold_in(key, step), sampling)

    def write(state: _State, ids_B: Array, logprobs_B: Array) -> _State:
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
        at = state.step - 1  # the token sampled last goes in now
        last_Bx1 = jax.lax.dynamic_slice_in_dim(state.ids, at, 1, axis=1)
        hidden, (k, v) = qwen_vl.extend(
            config, params, last_Bx1, (start_B + at)[:, None], jnp.ones_like(last_Bx1), (shared, state.own)
        )
        place = _read_before(at, hidden)
        own = Cache(
            k=jax.lax.dynamic_update_slice_in_dim(state.own.k, k, place, axis=3),
            v=jax.lax.dynamic_update_slice_in_dim(state.own.v, v, place, axis=3),
            valid=state.own.valid | (jnp.arange(length) == at)[None],
        )
        return write(state._replace(own=own), *drawn(hidden, state.step))

    empty = _State(
        step=jnp.int32(0),
        ids=jnp.full((rows, length), vocabulary.stop_ids[0], jnp.int32),
        logprobs=jnp.zeros((rows, length), jnp.float32),
        done=jnp.zeros((rows,), bool),
        length=jnp.zeros((rows,), jnp.int32),
        own=_empty_cache(config, rows, length),
    )
    first = write(empty, *drawn(jnp.repeat(last_NxD, group, axis=0), jnp.int32(0)))
    final = jax.lax.while_loop(lambda s: (s.step < length) & ~jnp.all(s.done), decode, first)
    return Rollout(ids=final.ids, length=final.length, logprobs=final.logprobs, finished=final.done)


def _prefilled(config: ModelConfig, params, prompts: Prompts) -> tuple[Float[Array, "N 1 D"], Cache]:
    """The hidden state at each prompt's last token, and the prompts' cache."""
    hidden_NxLxD, cache = qwen_vl.prefill(config, params, prompts.tokens, prompts.images)
    return jnp.take_along_axis(hidden_NxLxD, last_index(prompts)[:, None, None], axis=1), cache


def _read_before(at: Array, hidden_Bx1xD: Array) -> Array:
    """`at`, known only once `hidden` is.

    The cache is then written after the last layer has read it, so XLA updates it in place; free to do both in either
    order, it copies both caches, twice a token. (CPUs drop optimization barriers before that is decided.)
    """
    finite = hidden_Bx1xD[0, 0, 0] < jnp.inf
    return jnp.maximum(at, jnp.where(finite, 0, -1).astype(at.dtype))


def next_position(prompts: Prompts) -> Int[Array, " N"]:
    """The M-RoPE position of the first token after each prompt: one past the largest so far (Qwen2-VL's rule)."""
    seen = jnp.where((prompts.tokens.segments != 0)[..., None], prompts.tokens.positions, -1)
    return jnp.max(seen, axis=(1, 2)) + 1


def last_index(prompts: Prompts) -> Int[Array, " N"]:
    """The place of each prompt's last token, whichever side it is padded on."""
    places = jnp.arange(prompts.tokens.segments.shape[1], dtype=jnp.int32)[None]
    return jnp.max(jnp.where(prompts.tokens.segments != 0, places, 0), axis=1)


def _empty_cache(config: ModelConfig, rows: int, length: int) -> Cache:
    shape = (config.layers, rows, config.kv_heads, length, config.head_width)
    zeros = constrain(jnp.zeros(shape, config.compute.dtype), None, "batch", "kv_heads", None, None)
    return Cache(k=zeros, v=zeros, valid=jnp.zeros((rows, length), bool))
