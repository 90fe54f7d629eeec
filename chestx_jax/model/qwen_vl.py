"""Qwen2-VL and Qwen2.5-VL as pure functions of (parameters, rows, images).

`forward` runs whole rows (SFT). `prefill` runs prompts and hands back their cache; `extend` runs tokens that follow
cached ones: many at a time for log-probs of completions, one at a time for decoding. A cache with fewer rows than the
tokens is shared: row b reads cache row b // (B / R), so a group's prompt is computed and stored once.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from chestx_jax.model import induction, lora
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import Cache, Decoder
from chestx_jax.model.layers import declared
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
        self.embedding = self.param("embedding", declared(init, ("vocab", "embed")), shape, dtype)
        if not config.tied:
            self.head = self.param("head", declared(init, ("embed", "vocab")), shape[::-1], dtype)
        self.vision = VisionTower(config)
        self.decoder = Decoder(config)

    def rows(self, tokens: Tokens, images: Images, past: Sequence[Cache] = ()):
        """Hidden states and own keys of rows that may hold image pads."""
        visual = constrain(self.vision(images), "batch", None, None)
        x = self.embed(tokens.ids)
        seen = jax.vmap(lambda row, at: row[at])(visual, jnp.maximum(tokens.visual, 0))
        x = jnp.where((tokens.visual >= 0)[..., None], seen, x)
        return self.decoder(constrain(x, "batch", None, None), tokens.positions, tokens.segments, past)

    def text(self, ids: Array, positions: Array, segments: Array, past: Sequence[Cache]):
        """Hidden states and own keys of text that follows cached tokens."""
        return self.decoder(self.embed(ids), positions, segments, past)

    def embed(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        table = constrain(self.embedding.astype(self.config.compute.dtype), "vocab", None)  # gathered over fsdp once
        return constrain(table[ids], "batch", None, None)

    def logits(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """fp32 scores of the next token."""
        return scores(hidden, self.output())

    def output(self) -> Float[Array, "D V"]:
        """What turns hidden states into scores, in the dtype of computing."""
        kernel = self.embedding.T if self.config.tied else self.head
        return kernel.astype(self.config.compute.dtype)


def scores(hidden: Float[Array, "B L D"], head: Float[Array, "D V"]) -> Float[Array, "B L V"]:
    """fp32 scores of the columns of `head`."""
    found = jnp.einsum("bld,dv->blv", hidden, head, preferred_element_type=jnp.float32)
    return constrain(found, "batch", None, "vocab")


def forward(
    config: ModelConfig, params, tokens: Tokens, images: Images, dropout: Array | None = None
) -> Float[Array, "B L D"]:
    """Final hidden states of packed rows; `logits` turns them into scores of the next token. With a `dropout` key,
    low-rank additions drop out."""
    hidden, _ = _apply(config, params, "rows", tokens, images, dropout=dropout)
    return hidden


def prefill(config: ModelConfig, params, tokens: Tokens, images: Images) -> tuple[Float[Array, "N L D"], Cache]:
    """Hidden states of prompts (one segment a row, padded on either side) and the cache of their keys and values."""
    hidden, (k, v) = _apply(config, params, "rows", tokens, images)
    return hidden, Cache(k, v, tokens.segments != 0)


def extend(
    config: ModelConfig,
    params,
    ids_BxL: Int[Array, "B L"],
    positions_BxL: Int[Array, "B L"],
    segments_BxL: Int[Array, "B L"],
    past: Sequence[Cache],
) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
    """Hidden states of text tokens after `past`, and their keys and values [Y, B, K, L, E].

    Text turns all three M-RoPE streams alike, so `positions_BxL` is one number a token.
    """
    positions = jnp.repeat(positions_BxL[..., None], 3, axis=-1)
    return _apply(config, params, "text", ids_BxL, positions, segments_BxL, past)


def logits(config: ModelConfig, params, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """fp32 scores of the next token at each position."""
    return _apply(config, params, "logits", hidden)


def logical_axes(config: ModelConfig):
    """The logical axes of every parameter, as tuples where the parameters stand."""
    boxed = jax.eval_shape(lambda: _boxed(config, jax.random.key(0)))
    return jax.tree.map(lambda box: box.names, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata))


def gather_for_decoding(config: ModelConfig, params, axes):
    """A copy of the parameters for decoding: matrices in the dtype of computing and no longer split over fsdp, so that
    they are fetched from other chips once and not for every token. `axes` are those of the function of that name.

    Two steps, because from one the compiler gathers whole matrices on every chip: chips that will share a copy swap
    parts first, then each gathers its own."""

    def copied(path, x, names):
        vector = jax.tree_util.keystr(path[-1:]).strip("[']") in ("bias", "scale")  # norms compute with theirs in fp32
        x = x if vector else x.astype(config.compute.dtype)
        x = constrain(x, *names)
        return constrain(x, *(None if name == "embed" else name for name in names))

    return jax.tree_util.tree_map_with_path(copied, params, axes)


def output_matrix(config: ModelConfig, params) -> Float[Array, "D V"]:
    """The matrix of `logits`, for those who take the vocabulary part by part."""
    return _apply(config, params, "output")


def _apply(config: ModelConfig, params, method: str, *arguments, dropout: Array | None = None) -> Any:
    rngs = None if dropout is None else {"dropout": dropout}
    params = lora.stop_frozen_gradients(config, params)
    return QwenVL(config).apply({"params": params}, *arguments, method=method, rngs=rngs)


def init(config: ModelConfig, key: Array):
    """Random parameters, a plain pytree of arrays, the decoder's attention begun as `config.start` says."""
    params = nn.meta.unbox(_boxed(config, key))
    return (
        induction.with_induction_heads(config, params, jax.random.fold_in(key, 1))
        if config.start == "induction"
        else params
    )


def shapes(config: ModelConfig):
    """The parameter tree as ShapeDtypeStructs; allocates nothing."""
    return jax.eval_shape(lambda: nn.meta.unbox(_boxed(config, jax.random.key(0))))


def shardings(config: ModelConfig, mesh):
    """A NamedSharding for every parameter, from the logical axes declared with it."""
    boxed = jax.eval_shape(lambda: _boxed(config, jax.random.key(0)))
    is_box = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)  # noqa: E731
    return jax.tree.map(lambda box: named_sharding(mesh, box.names, box.value.shape), boxed, is_leaf=is_box)


def _boxed(config: ModelConfig, key: Array):
    vision, patches = config.vision, config.vision.merge_size**2
    tokens = Tokens(
        ids=jnp.zeros((1, 1), jnp.int32),
        segments=jnp.ones((1, 1), jnp.int32),
        positions=jnp.zeros((1, 1, 3), jnp.int32),
        visual=jnp.zeros((1, 1), jnp.int32),
    )
    images = Images(
        patches=jnp.zeros((1, 1, patches, vision.patch_values), jnp.float32),
        positions=jnp.zeros((1, 1, patches, 2), jnp.int32),
        valid=jnp.ones((1, 1, patches), bool),
    )
    return QwenVL(config).init(key, tokens, images, method="rows")["params"]
