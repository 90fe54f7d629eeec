"""The Qwen-VL families as pure functions of (parameters, rows, images).

`forward` runs whole rows (SFT). `prefill` runs prompts and returns their cache; `extend` runs tokens that follow cached
ones: many at a time for log-probs of completions, one at a time for decoding. A cache with fewer rows than the tokens
is shared: row b reads cache row b // (B / R), so a group's prompt is computed and stored once.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from chestx_jax.model import induction, lora
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import Cache, Decoder, RingCache, layer_name, segment_mask
from chestx_jax.model.deepstack import at_places
from chestx_jax.model.embedding import embed_tokens, head_logits
from chestx_jax.model.layers import with_axes
from chestx_jax.model.vision import VisionTower
from chestx_jax.sharding import constrain, named_sharding
from chestx_jax.types import Images, Tokens


class QwenVL(nn.Module):
    """The parameter tree: `embedding` [V, D], `head` [D, V] unless tied, `vision`, `decoder`."""

    config: ModelConfig

    def setup(self):
        config = self.config
        init, dtype = nn.initializers.normal(config.initializer_range), config.compute.param_dtype
        shape = (config.vocab_size, config.width)
        self.embedding = self.param("embedding", with_axes(init, ("vocab", "embed")), shape, dtype)
        if not config.tied:
            self.head = self.param("head", with_axes(init, ("embed", "vocab")), shape[::-1], dtype)
        self.vision = VisionTower(config)
        self.decoder = Decoder(config)

    def multimodal(self, tokens: Tokens, images: Images, past: Sequence[Cache] = ()):
        """Hidden states, keys and values of rows that may contain image pads."""
        features = self.vision(images)
        placed_BxLxD, visual_BxLx1 = at_places(constrain(features.tokens, "batch", None, None), tokens.visual)
        x_BxLxD = constrain(jnp.where(visual_BxLx1, placed_BxLxD, self.embed(tokens.ids)), "batch", None, None)
        deepstack = None if features.deepstack is None else (features.deepstack, tokens.visual)
        mask = segment_mask(self.config, tokens.segments, past)
        return self.decoder(x_BxLxD, tokens.positions, mask, past, deepstack)

    def text(self, ids_BxL: Array, positions_BxLx3: Array, segments_BxL: Array, past: Sequence[Cache]):
        """Hidden states, keys and values of text that follows cached tokens."""
        mask = segment_mask(self.config, segments_BxL, past)
        return self.decoder(self.embed(ids_BxL), positions_BxLx3, mask, past)

    def next_token(self, ids_Bx1: Array, positions_Bx1x3: Array, lengths_B: Array, past: Cache, ring: RingCache):
        """Hidden states of one more token a row, and the ring that holds it."""
        mask = ring.mask(lengths_B)
        hidden, keys_values = self.decoder(self.embed(ids_Bx1), positions_Bx1x3, mask, (past,), ring=ring)
        return hidden, ring.written(*keys_values)

    def embed(self, ids_BxL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Token embeddings in the compute dtype."""
        return embed_tokens(self.embedding, ids_BxL, self.config.compute.dtype)

    def logits(self, hidden_BxLxD: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """fp32 logits of the next token."""
        return head_logits(hidden_BxLxD, self.output_matrix(), self.config.compute.dtype)

    def output_matrix(self) -> Float[Array, "D V"]:
        """The matrix that maps hidden states to logits."""
        return self.embedding.T if self.config.tied else self.head


def forward(
    config: ModelConfig, params, tokens: Tokens, images: Images, dropout: Array | None = None
) -> Float[Array, "B L D"]:
    """Final hidden states of packed rows, in the compute dtype; `logits` maps them to logits. With a `dropout` key,
    adapters drop their input out."""
    hidden_BxLxD, _ = _apply(config, params, "multimodal", tokens, images, dropout=dropout)
    return hidden_BxLxD


def prefill(config: ModelConfig, params, tokens: Tokens, images: Images) -> tuple[Float[Array, "N L D"], Cache]:
    """Hidden states of prompts (one segment a row, padded on either side) and the cache of their keys and values."""
    hidden_NxLxD, (k, v) = _apply(config, params, "multimodal", tokens, images)
    return hidden_NxLxD, Cache(k, v, tokens.segments != 0)


def extend(
    config: ModelConfig,
    params,
    ids_BxL: Int[Array, "B L"],
    positions_BxL: Int[Array, "B L"],
    segments_BxL: Int[Array, "B L"],
    past: Sequence[Cache],
) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
    """Hidden states of text tokens after `past`, and their keys and values [Y, B, K, L, E].

    In text the three M-RoPE positions of a token are equal, so `positions_BxL` is one number a token.
    """
    positions_BxLx3 = jnp.repeat(positions_BxL[..., None], 3, axis=-1)
    return _apply(config, params, "text", ids_BxL, positions_BxLx3, segments_BxL, past)


def decode(
    config: ModelConfig,
    params,
    ids_B: Int[Array, " B"],
    positions_B: Int[Array, " B"],
    lengths_B: Int[Array, " B"],
    past: Cache,
    ring: RingCache,
) -> tuple[Float[Array, "B 1 D"], RingCache]:
    """Hidden states of one token a row, after those in `past` and the row's own in `ring`; and the ring with it.

    `params` are those of `for_decoding`; `lengths_B` counts the row's own tokens, with this one.
    """
    positions_Bx1x3 = jnp.repeat(positions_B[:, None, None], 3, axis=-1)
    return _apply(config, params, "next_token", ids_B[:, None], positions_Bx1x3, lengths_B, past, ring)


def logits(config: ModelConfig, params, hidden_BxLxD: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """fp32 logits of the next token at each position."""
    return _apply(config, params, "logits", hidden_BxLxD)


def output_matrix(config: ModelConfig, params) -> Float[Array, "D V"]:
    """The matrix of `logits`, for callers that take the vocabulary in chunks (`head_logits`)."""
    return _apply(config, params, "output_matrix")


def logical_axes(config: ModelConfig):
    """The logical axes of every parameter: a tree like the parameters' of tuples of names."""
    return jax.tree.map(lambda box: box.names, _abstract_boxed(config), is_leaf=_is_box)


def for_decoding(config: ModelConfig, params, axes):
    """A copy of the parameters for decoding, with a layer's in trees of their own, so that no layer is copied out of a
    stack at each token. With `compute.decoding` "gathered", matrices are in the compute dtype and no longer split over
    fsdp, so that they are fetched from other chips once and not for every token. `axes` are those of `logical_axes`.

    Two steps, because the compiler makes one step into a gather of whole matrices on every chip: chips that share a
    copy exchange parts first, then each gathers its own."""
    params = unstack_layers(config, params)
    if config.compute.decoding == "split":
        return params

    def copy(path, x, names):
        vector = jax.tree_util.keystr(path[-1:]).strip("[']") in ("bias", "scale")  # norms compute with theirs in fp32
        x = x if vector else x.astype(config.compute.dtype)
        x = constrain(x, *names)
        return constrain(x, *_gathered(names))

    return jax.tree_util.tree_map_with_path(copy, params, _unstacked_axes(config, axes))


def decoding_shardings(config: ModelConfig, mesh: Mesh):
    """A NamedSharding for every parameter of `for_decoding`."""
    names_of = _gathered if config.compute.decoding == "gathered" else tuple
    shard = lambda leaf, names: named_sharding(mesh, names_of(names), leaf.shape)  # noqa: E731
    return jax.tree.map(shard, decoding_shapes(config), _unstacked_axes(config, logical_axes(config)))


def decoding_shapes(config: ModelConfig):
    """The tree of `for_decoding` as ShapeDtypeStructs."""
    return jax.eval_shape(lambda params: for_decoding(config, params, logical_axes(config)), shapes(config))


def unstack_layers(config: ModelConfig, params, layer=lambda leaf, number: leaf[number]):
    """A tree like the parameters', the decoder's layers in trees of their own: `layer(leaf, number)` of each leaf."""
    decoder = dict(params["decoder"])
    stacked = decoder.pop("layers")
    for number in range(config.layers):
        part = jax.tree.map(partial(layer, number=number), stacked, is_leaf=lambda node: isinstance(node, tuple))
        decoder[layer_name(number)] = part
    return {**params, "decoder": decoder}


def _unstacked_axes(config: ModelConfig, axes):
    return unstack_layers(config, axes, lambda names, number: names[1:])


def _gathered(names: Sequence[str | None]) -> tuple[str | None, ...]:
    return tuple(None if name == "embed" else name for name in names)


def _apply(config: ModelConfig, params, method: str, *arguments, dropout: Array | None = None) -> Any:
    rngs = None if dropout is None else {"dropout": dropout}
    params = lora.stop_frozen_gradients(config, params)
    return QwenVL(config).apply({"params": params}, *arguments, method=method, rngs=rngs)


def init(config: ModelConfig, key: Array):
    """Random parameters, a plain pytree of arrays, with the initial attention that `config.start` names."""
    params = nn.meta.unbox(_boxed(config, key))
    if config.start == "random":
        return params
    return induction.with_induction_heads(config, params, jax.random.fold_in(key, 1))


def shapes(config: ModelConfig):
    """The parameter tree as ShapeDtypeStructs; allocates nothing."""
    return jax.tree.map(lambda box: box.value, _abstract_boxed(config), is_leaf=_is_box)


def shardings(config: ModelConfig, mesh: Mesh):
    """A NamedSharding for every parameter, from the logical axes declared with it."""
    shard = lambda box: named_sharding(mesh, box.names, box.value.shape)  # noqa: E731
    return jax.tree.map(shard, _abstract_boxed(config), is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


@cache
def _abstract_boxed(config: ModelConfig):
    return jax.eval_shape(lambda: _boxed(config, jax.random.key(0)))


def _boxed(config: ModelConfig, key: Array):
    """Random parameters, each boxed with its logical axes."""
    vision, patches = config.vision, config.vision.merge_size**2
    tokens = Tokens(
        ids=jnp.zeros((1, 1), jnp.int32),
        segments=jnp.ones((1, 1), jnp.int32),
        positions=jnp.zeros((1, 1, 3), jnp.int32),
        visual=jnp.zeros((1, 1), jnp.int32),
    )
    images = Images(
        patches=jnp.zeros((1, 1, patches, vision.channels * vision.patch_size**2), jnp.uint8),
        positions=jnp.zeros((1, 1, patches, 2), jnp.int32),
        valid=jnp.ones((1, 1, patches), bool),
        mean=config.architecture.pixel_mean,
        std=config.architecture.pixel_std,
    )
    return QwenVL(config).init(key, tokens, images, method="multimodal")["params"]
