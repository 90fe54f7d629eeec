"""DeepStack: features of several vision layers, each added to the decoder's residual stream after one of its first
layers, at the places of the image's tokens (arXiv 2406.04334; Qwen3-VL adds one feature after each layer)."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class VisualFeatures:
    """What the vision tower makes of the images of each row: the tokens that stand in place of the image pads, and the
    features to add after the decoder's first layers, None in a family without DeepStack."""

    tokens: Float[Array, "B U D"]
    deepstack: Float[Array, "W B U D"] | None  # W features


def at_places(
    features_BxUxD: Float[Array, "B U D"], visual_BxL: Int[Array, "B L"]
) -> tuple[Array, Bool[Array, "B L 1"]]:
    """Each place's own visual token [B, L, D], and where there is one; `visual_BxL` is that of `types.Tokens`."""
    placed = jax.vmap(lambda row, index: row[index])(features_BxUxD, jnp.maximum(visual_BxL, 0))
    return placed, (visual_BxL >= 0)[..., None]


def add_feature(
    x_BxLxD: Float[Array, "B L D"],
    layer: Int[Array, ""],
    deepstack_WxBxUxD: Float[Array, "W B U D"],
    visual_BxL: Int[Array, "B L"],
) -> Float[Array, "B L D"]:
    """The residual stream after decoder layer number `layer`, with that layer's feature where it has one."""

    def add(x: Array) -> Array:
        feature = jax.lax.dynamic_index_in_dim(deepstack_WxBxUxD, layer, axis=0, keepdims=False)
        placed, visual = at_places(feature, visual_BxL)
        return x + jnp.where(visual, placed, jnp.zeros((), x.dtype))

    return jax.lax.cond(layer < deepstack_WxBxUxD.shape[0], add, lambda x: x, x_BxLxD)
