"""What sampling computes on the devices: prompts into lanes, and some tokens at a time for the slots of each lane.

A *lane* holds a prompt's keys and values; its *slots* each sample a completion of that prompt. Which completion is in
which slot is decided on the host between two runs of `decode` (`rollout.schedule`), which samples the same number of
tokens in all slots, whatever their completions' positions. A draw belongs to (prompt, sample, position), so it does not
depend on the slot.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float, Int

from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import Cache, RingCache
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary, next_token_logprobs, sample
from chestx_jax.sharding import constrain, put_rows, take_rows
from chestx_jax.types import Array, Prompts


@struct.dataclass
class Lanes:
    """Prompts that are being answered."""

    cache: Cache  # a tuple of the layers
    last_NxD: Float[Array, "N D"]  # hidden state of the prompt's last token
    start_N: Int[Array, " N"]  # M-RoPE position of the first token after it
    number_N: Int[Array, " N"]  # the prompt's position in the data, to which its draws belong


@struct.dataclass
class Slots:
    """What each slot samples, all of one lane next to each other: B is a multiple of N."""

    ids_B: Int[Array, " B"]  # the token sampled last
    position_B: Int[Array, " B"]  # tokens sampled so far
    sample_B: Int[Array, " B"]  # the completion's number among those of its prompt


def prefill(config: ModelConfig, params, prompts: Prompts) -> Lanes:
    """Lanes of the prompts. `params` are those of `qwen_vl.for_decoding`; draws belong to `prompts.index`."""
    hidden_NxLxD, cache = qwen_vl.prefill(config, params, prompts.tokens, prompts.images)
    last_Nx1xD = jnp.take_along_axis(hidden_NxLxD, last_index(prompts)[:, None, None], axis=1)
    k, v = tuple(map(_placed, cache.k)), tuple(map(_placed, cache.v))
    return Lanes(Cache(k, v, cache.valid), last_Nx1xD[:, 0], next_position(prompts), prompts.index)


def empty_ring(config: ModelConfig, rows: int, columns: int) -> RingCache:
    """A ring of `rows` slots in which nothing is written."""
    shape = (rows, config.kv_heads, columns, config.head_width)
    k, v = (tuple(_placed(jnp.zeros(shape, config.compute.dtype)) for _ in range(config.layers)) for _ in range(2))
    return RingCache(k, v, jnp.int32(0))


def decode(
    config: ModelConfig,
    sampling: SamplingConfig,
    steps: int,
    params,
    vocabulary: Vocabulary,
    key: Array,
    lanes: Lanes,
    ring: RingCache,
    slots: Slots,
) -> tuple[RingCache, Int[Array, "B T"], Float[Array, "B T"]]:
    """The next `steps` tokens of every slot and their fp32 log-probs, those of `sampling.next_token_logprobs`; and the
    ring with them. What follows a stop id or the length limit in a row is of no use, and is not told apart here.

    A slot at position 0 takes its first token from the prompt's last hidden state; what it writes to the ring then is
    never attended to.
    """
    group = slots.ids_B.shape[0] // lanes.start_N.shape[0]
    start_B, number_B = jnp.repeat(lanes.start_N, group), jnp.repeat(lanes.number_N, group)
    keys_B = jax.vmap(lambda number, sample: jax.random.fold_in(jax.random.fold_in(key, number), sample))(
        number_B, slots.sample_B
    )
    first_Bx1xD = jnp.repeat(lanes.last_NxD, group, axis=0)[:, None]

    def step(carry, _):
        ring, ids_B, position_B = carry
        hidden_Bx1xD, ring = qwen_vl.decode(
            config, params, ids_B, start_B + position_B - 1, position_B, lanes.cache, ring
        )
        hidden_Bx1xD = jnp.where((position_B == 0)[:, None, None], first_Bx1xD, hidden_Bx1xD)
        logits_Bx1xV = qwen_vl.logits(config, params, hidden_Bx1xD)
        logprobs_Bx1xV = next_token_logprobs(logits_Bx1xV, vocabulary.allowed, sampling.temperature)
        ids_B, logprobs_B = sample(logprobs_Bx1xV[:, 0], jax.vmap(jax.random.fold_in)(keys_B, position_B), sampling)
        return (ring, ids_B, position_B + 1), (ids_B, logprobs_B)

    carry = ring, slots.ids_B, slots.position_B
    (ring, _, _), (ids_TxB, logprobs_TxB) = jax.lax.scan(step, carry, None, length=steps)
    return ring, ids_TxB.T, logprobs_TxB.T


def next_position(prompts: Prompts) -> Int[Array, " N"]:
    """The M-RoPE position of the first token after each prompt: one past the largest so far (Qwen2-VL's rule)."""
    positions = jnp.where((prompts.tokens.segments != 0)[..., None], prompts.tokens.positions, -1)
    return jnp.max(positions, axis=(1, 2)) + 1


def last_index(prompts: Prompts) -> Int[Array, " N"]:
    """The index of each prompt's last token, whichever side it is padded on."""
    index = jnp.arange(prompts.tokens.segments.shape[1], dtype=jnp.int32)[None]
    return jnp.max(jnp.where(prompts.tokens.segments != 0, index, 0), axis=1)


# What moves prompts, lanes and slots: rows are named within each device's part of the batch, so that none leaves it.

CACHE_AXES = ("batch", "kv_heads", None, None)


def cache_axes(x: Array) -> tuple[str | None, ...]:
    """The logical axes of an array of lanes or of a ring, where those of four dimensions are keys or values."""
    return CACHE_AXES if x.ndim == 4 else _row_axes(x)


def take_prompts(prompts: Prompts, rows_N: Int[Array, " N"]) -> Prompts:
    """Those rows of each shard's prompts."""
    return jax.tree.map(lambda x: take_rows(x, rows_N, _row_axes(x)), prompts)


def take_lanes(lanes: Lanes, rows_N: Int[Array, " N"]) -> Lanes:
    """Those of each shard's lanes."""
    return jax.tree.map(lambda x: take_rows(x, rows_N, cache_axes(x)), lanes)


def put_lanes(lanes: Lanes, new: Lanes, rows_N: Int[Array, " N"]) -> Lanes:
    """The lanes with new ones in place of those of each shard; one that is not there is left out."""
    return jax.tree.map(lambda x, y: put_rows(x, y, rows_N, cache_axes(x)), lanes, new)


def take_columns(
    cached_RxKxCxE: Float[Array, "R K C E"], rows_B: Int[Array, " B"], columns_S: Int[Array, " S"]
) -> Float[Array, "B K S E"]:
    """Those columns of those of each shard's rows, of one layer's keys or values."""
    return take_rows(cached_RxKxCxE, rows_B, CACHE_AXES)[:, :, columns_S]


def _row_axes(x: Array) -> tuple[str | None, ...]:
    return ("batch", *(None,) * (x.ndim - 1))[: x.ndim]


def _placed(cached_RxKxSxE: Array) -> Array:
    return constrain(cached_RxKxSxE, *CACHE_AXES)
