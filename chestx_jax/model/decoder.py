"""The decoder: scanned pre-norm layers with M-RoPE and grouped-query attention over cached keys and the row's own."""

from collections.abc import Sequence

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
    """Keys and values of earlier tokens, stacked over the layers; `valid` is True for slots that hold a token."""

    k: Float[Array, "Y R K S E"]
    v: Float[Array, "Y R K S E"]
    valid: Bool[Array, "R S"]


class DecoderAttention(nn.Module):
    """Causal attention within the row's segments and over the caches that precede the row."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, past: Sequence[tuple[Array, Array]], masks: Sequence[Array], tables):
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
    def __call__(self, x: Array, past, masks, tables):
        config = self.config
        x = checkpoint_name(x, "layer_input")  # such names are for remat="offload" (`layers.OFFLOADED`)
        normed = RMSNorm(config.norm_eps, config, name="attention_norm")(x)
        attended, keys_values = DecoderAttention(config, name="attention")(normed, past, masks, tables)
        x = x + checkpoint_name(attended, "attended")
        x = x + DecoderMlp(config, name="mlp")(RMSNorm(config.norm_eps, config, name="mlp_norm")(x))
        return constrain(x, "batch", None, None), keys_values


class Decoder(nn.Module):
    """Embedded rows → final-normed hidden states, and the rows' own keys and values [Y, B, K, L, E]. `deepstack` holds
    features [W, B, U, D] of the rows' images and which of them belongs to each token, as `Tokens.visual` has it."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BxLxD: Float[Array, "B L D"],
        positions_BxLx3: Int[Array, "B L 3"],
        segments_BxL: Int[Array, "B L"],
        past: Sequence[Cache],
        deepstack: tuple[Array, Array] | None = None,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
        config = self.config
        rows = x_BxLxD.shape[0]
        interleaved = config.architecture.interleaved_mrope
        tables = mrope_tables(positions_BxLx3, config.head_width, config.rope_theta, config.mrope_section, interleaved)
        masks = tuple(jnp.repeat(cache.valid, rows // cache.valid.shape[0], axis=0)[:, None] for cache in past)

        def run(layer: nn.Module, x: Array, number: Array, cached, masks, tables, deepstack):
            x, keys_values = layer(x, cached, masks, tables)
            return x if deepstack is None else add_feature(x, number, *deepstack), keys_values

        stack = nn.scan(
            run,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=config.layers,
            unroll=config.compute.unroll or config.layers,
            metadata_params={nn.PARTITION_NAME: None},
        )
        layer, numbers = remat(DecoderLayer, config)(config, name="layers"), jnp.arange(config.layers, dtype=jnp.int32)
        cached = tuple((cache.k, cache.v) for cache in past)
        segments = Segments(segments_BxL, segments_BxL, causal=True)
        own_mask = make_mask(segments, config.compute.attention, [cache.k.shape[3] for cache in past])
        hidden, keys_values = stack(layer, x_BxLxD, numbers, cached, (*masks, own_mask), tables, deepstack)
        return RMSNorm(config.norm_eps, config, name="norm")(hidden), keys_values
