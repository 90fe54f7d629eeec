"""The decoder: scanned pre-norm layers with M-RoPE and grouped-query attention over cached keys and the row's own."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.model.attention import KeyBlock, attend, make_mask
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.deepstack import add_feature
from chestx_jax.model.layers import Linear, RMSNorm, remat
from chestx_jax.model.rope import mrope_tables, rotate
from chestx_jax.model.splash import Segments
from chestx_jax.sharding import constrain


@struct.dataclass
class Cache:
    """Keys and values of earlier tokens, stacked over the layers or a tuple of them; `valid` is True for slots that
    hold a token."""

    k: Float[Array, "Y R K S E"] | tuple[Float[Array, "R K S E"], ...]
    v: Float[Array, "Y R K S E"] | tuple[Float[Array, "R K S E"], ...]
    valid: Bool[Array, "R S"]


@struct.dataclass
class RingCache:
    """Keys and values of rows that grow by one token at a time. All rows write to the same column, one after another
    and around again, so that the write is a slice whatever their lengths: of a row of length n, the n columns written
    last are its tokens."""

    k: tuple[Float[Array, "B K S E"], ...]
    v: tuple[Float[Array, "B K S E"], ...]
    head: Int[Array, ""]  # the column that is written next

    def mask(self, lengths_B: Int[Array, " B"]) -> Bool[Array, "B 1 S"]:
        """The columns that hold the last `lengths_B` tokens of each row once the next is written."""
        columns = self.k[0].shape[2]
        age_S = (self.head - jnp.arange(columns, dtype=jnp.int32)) % columns
        return (age_S[None] < lengths_B[:, None])[:, None]

    def written(self, k: Sequence[Array], v: Sequence[Array]) -> "RingCache":
        """The ring after one token, whose keys and values are in `k` and `v`."""
        return RingCache(tuple(k), tuple(v), (self.head + 1) % self.k[0].shape[2])


class DecoderAttention(nn.Module):
    """Causal attention within the row's segments and over the caches that precede the row. With `own`, the layer's keys
    and values of a `RingCache` and the column to write, the row is one token and attends to the ring that it is in."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, past: Sequence[tuple[Array, Array]], masks: Sequence[Array], tables, own=None):
        config = self.config
        rows, length, _ = x.shape
        heads, kv_heads, width = config.heads, config.kv_heads, config.head_width
        bias = config.architecture.projection_bias
        q = checkpoint_name(Linear(heads * width, ("embed", "heads"), config, bias, name="q")(x), "query")
        k = checkpoint_name(Linear(kv_heads * width, ("embed", "kv_heads"), config, bias, name="k")(x), "key")
        v = checkpoint_name(Linear(kv_heads * width, ("embed", "kv_heads"), config, bias, name="v")(x), "value")
        q = constrain(q.reshape(rows, length, heads, width), "batch", None, "heads", None)
        k = k.reshape(rows, length, kv_heads, width)
        if config.architecture.qk_norm:
            q, k = (RMSNorm(config.norm_eps, config, name=name)(x) for name, x in (("q_norm", q), ("k_norm", k)))
        q, k = rotate(q, tables), rotate(k, tables)
        k, v = (jnp.swapaxes(x, 1, 2) for x in (k, v.reshape(rows, length, kv_heads, width)))
        if own is not None:
            cached_k, cached_v, column = own
            k, v = (jax.lax.dynamic_update_slice_in_dim(x, y, column, 2) for x, y in ((cached_k, k), (cached_v, v)))
        blocks = [KeyBlock(*block, mask) for block, mask in zip((*past, (k, v)), masks, strict=True)]
        out = attend(q, blocks, config.compute.attention).reshape(rows, length, heads * width)
        return Linear(config.width, ("heads", "embed"), config, residual=True, name="o")(out), (k, v)


class DecoderMlp(nn.Module):
    """SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate = Linear(self.config.hidden, ("embed", "mlp"), self.config, name="gate")(x)
        up = Linear(self.config.hidden, ("embed", "mlp"), self.config, name="up")(x)
        hidden = constrain(jax.nn.silu(gate) * up, "batch", None, "mlp")
        return Linear(self.config.width, ("mlp", "embed"), self.config, residual=True, name="down")(hidden)


class DecoderLayer(nn.Module):
    """One pre-norm block; returns its keys and values too, for a cache."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, past, masks, tables, own=None):
        config = self.config
        x = checkpoint_name(x, "layer_input")  # such names are for remat="offload" (`layers.OFFLOADED`)
        normed = RMSNorm(config.norm_eps, config, name="attention_norm")(x)
        attended, keys_values = DecoderAttention(config, name="attention")(normed, past, masks, tables, own)
        x = x + checkpoint_name(attended, "attended")
        x = x + DecoderMlp(config, name="mlp")(RMSNorm(config.norm_eps, config, name="mlp_norm")(x))
        return constrain(x, "batch", None, None), keys_values


class Decoder(nn.Module):
    """Embedded rows → final-normed hidden states, and the rows' own keys and values by layer. `deepstack` has features
    [W, B, U, D] of the rows' images and which of them belongs to each token, as `Tokens.visual` has it.

    The layers are scanned over stacked parameters, which compiles them once; where the parameters are those of
    `qwen_vl.for_decoding`, a layer each, they run in turn, which copies no layer out of a stack. Keys and values are
    [Y, B, K, L, E] or a tuple accordingly. With `ring`, rows of one token are written to it and attend to it.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BxLxD: Float[Array, "B L D"],
        positions_BxLx3: Int[Array, "B L 3"],
        own_mask: Bool[Array, "B L S"] | Segments,
        past: Sequence[Cache],
        deepstack: tuple[Array, Array] | None = None,
        ring: RingCache | None = None,
    ) -> tuple[Float[Array, "B L D"], tuple[Any, Any]]:
        config = self.config
        rows = x_BxLxD.shape[0]
        interleaved = config.architecture.interleaved_mrope
        tables = mrope_tables(positions_BxLx3, config.head_width, config.rope_theta, config.mrope_section, interleaved)
        valid = [jnp.repeat(cache.valid, rows // cache.valid.shape[0], axis=0)[:, None] for cache in past]
        masks = (*valid, own_mask)

        norm = RMSNorm(config.norm_eps, config, name="norm")
        if self.has_variable("params", layer_name(0)):
            hidden, by_layer = x_BxLxD, []
            for number in range(config.layers):
                params = self.variables["params"][layer_name(number)]
                cached: Any = tuple((cache.k[number], cache.v[number]) for cache in past)
                own = None if ring is None else (ring.k[number], ring.v[number], ring.head)
                inputs = hidden, jnp.int32(number), cached, masks, tables, deepstack, own
                hidden, keys_values = _traced_once(config, params, *inputs)
                by_layer.append(keys_values)
            keys, values = zip(*by_layer, strict=True)
            return norm(hidden), (keys, values)
        stack = nn.scan(
            _run_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=config.layers,
            unroll=config.compute.unroll or config.layers,
            metadata_params={nn.PARTITION_NAME: None},
        )
        layer, numbers = remat(DecoderLayer, config)(config, name="layers"), jnp.arange(config.layers, dtype=jnp.int32)
        cached = tuple((cache.k, cache.v) for cache in past)
        hidden, keys_values = stack(layer, x_BxLxD, numbers, cached, masks, tables, deepstack)
        return norm(hidden), keys_values


def _run_layer(layer: nn.Module, x: Array, number: Array, cached, masks, tables, deepstack, own=None):
    """One layer, and what the image features add after it."""
    x, keys_values = layer(x, cached, masks, tables, own)
    return x if deepstack is None else add_feature(x, number, *deepstack), keys_values


@partial(jax.jit, static_argnums=0)
def _traced_once(config: ModelConfig, params, *inputs):
    """`_run_layer` on one layer's own parameters. All layers have the same shapes, and `jit` inside of a program keeps
    the trace of the first for the others."""
    return nn.apply(_run_layer, DecoderLayer(config))({"params": params}, *inputs)


def layer_name(number: int) -> str:
    """The name of a layer's parameters where each layer has its own."""
    return f"layer_{number}"


def segment_mask(config: ModelConfig, segments_BxL: Int[Array, "B L"], past: Sequence[Cache]):
    """The mask of whole rows: each token attends to those of its segment up to itself."""
    segments = Segments(segments_BxL, segments_BxL, causal=True)
    return make_mask(segments, config.compute.attention, [cache.k[0].shape[2] for cache in past])
