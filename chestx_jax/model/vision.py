"""The vision tower and its merger: patches of each image slot → visual tokens of the decoder's width."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from chestx_jax.model.attention import KeyBlock, attend, make_mask
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.deepstack import VisualFeatures
from chestx_jax.model.layers import LayerNorm, Linear, RMSNorm, quick_gelu, remat, with_axes
from chestx_jax.model.pixels import normalise
from chestx_jax.model.position_table import interpolate
from chestx_jax.model.rope import axial_tables, rotate
from chestx_jax.model.splash import Segments
from chestx_jax.sharding import constrain
from chestx_jax.types import Images

NORM_EPSILON = 1e-6  # fixed in every family


def _norm(config: ModelConfig, name: str) -> nn.Module:
    kind = LayerNorm if config.architecture.vision_norm == "layer" else RMSNorm
    return kind(NORM_EPSILON, config, name=name)


class VisionAttention(nn.Module):
    """Attention among the patches of an image slot. The fused kernel is [width, 3, width]: query, key, value."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, mask: Bool[Array, "B P P"] | Segments, tables: tuple[Array, Array]) -> Array:
        vision, compute = self.config.vision, self.config.compute
        rows, length, width = x.shape
        init = nn.initializers.normal(self.config.initializer_range)
        kernel = self.param(
            "qkv_kernel", with_axes(init, ("embed", None, "heads")), (width, 3, width), compute.param_dtype
        )
        zeros = nn.initializers.zeros
        bias = self.param("qkv_bias", with_axes(zeros, (None, "heads")), (3, width), compute.param_dtype)
        qkv = jnp.einsum("bld,dif->iblf", x, kernel.astype(compute.dtype))
        qkv = qkv + bias.astype(compute.dtype)[:, None, None]
        q, k, v = qkv.reshape(3, rows, length, vision.heads, width // vision.heads)
        block = KeyBlock(jnp.swapaxes(rotate(k, tables), 1, 2), jnp.swapaxes(v, 1, 2), mask)
        out = attend(rotate(q, tables), [block], compute.attention)
        return Linear(width, ("heads", "embed"), self.config, bias=True, residual=True, name="proj")(
            out.reshape(x.shape)
        )


class VisionMlp(nn.Module):
    """Two biased layers with an activation between them, or the SiLU-gated form of three."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        vision = self.config.vision
        up = Linear(vision.hidden, ("embed", "mlp"), self.config, bias=True, name="up")(x)
        if self.config.architecture.vision_mlp == "swiglu":
            gate = Linear(vision.hidden, ("embed", "mlp"), self.config, bias=True, name="gate")(x)
            up = jax.nn.silu(gate) * up
        elif self.config.architecture.vision_mlp == "gelu_tanh":
            up = jax.nn.gelu(up, approximate=True)
        else:
            up = quick_gelu(up)
        return Linear(vision.width, ("mlp", "embed"), self.config, bias=True, residual=True, name="down")(up)


class VisionLayer(nn.Module):
    """One pre-norm block; in a windowed tower `full` says whether this layer attends over the whole image."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, full: Array, masks: tuple[Array, Array], tables: tuple[Array, Array]):
        mask, window_mask = masks
        if self.config.architecture.vision_windows:
            mask = jax.tree.map(lambda whole, window: jnp.where(full, whole, window), mask, window_mask)
        x = x + VisionAttention(self.config, name="attention")(_norm(self.config, "norm1")(x), mask, tables)
        x = x + VisionMlp(self.config, name="mlp")(_norm(self.config, "norm2")(x))
        return constrain(x, "batch", None, None), None


def _two_layers(config: ModelConfig, x: Array, prefix: str = "") -> Array:
    """Merge blocks [..., merge² · width] → tokens of the decoder's width; called in a module's compact method."""
    x = Linear(x.shape[-1], ("embed", "mlp"), config, bias=True, name=f"{prefix}up")(x)
    x = jax.nn.gelu(x, approximate=False)
    return Linear(config.width, ("mlp", "embed"), config, bias=True, name=f"{prefix}down")(x)


class DeepStackMerger(nn.Module):
    """One vision layer's merge blocks → features of the decoder's width, normed over whole blocks."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _two_layers(self.config, _norm(self.config, "norm")(x))


class VisionTower(nn.Module):
    """Patches in merge-block order → visual tokens, and DeepStack's features; attention never crosses image slots or
    reads padding."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Images) -> VisualFeatures:
        config, architecture = self.config, self.config.architecture
        vision, dtype = config.vision, config.compute.dtype
        rows, slots, patches, _ = images.patches.shape
        positions = images.positions.reshape(rows * slots, patches, 2)
        valid = images.valid.reshape(rows * slots, patches)
        window = vision.window // vision.patch_size if architecture.vision_windows else 0
        masks = _masks(positions, valid, window, config.compute.attention)
        values = normalise(images, vision.temporal_patch_size)
        x = values.reshape(rows * slots, patches, vision.patch_values).astype(dtype)
        x = Linear(vision.width, (None, "embed"), config, bias=architecture.patch_bias, name="patch_embed")(x)
        if architecture.position_table:
            init, shape = nn.initializers.normal(config.initializer_range), (vision.table_side**2, vision.width)
            table = self.param("position_table", with_axes(init, (None, "embed")), shape, config.compute.param_dtype)
            x = x + interpolate(table, positions, valid).astype(dtype)
        tables = axial_tables(positions, vision.width // vision.heads)
        full = np.asarray([layer in vision.full_attention_layers for layer in range(vision.layers)])
        chosen = vision.deepstack_layers if architecture.deepstack else ()
        # Where each layer's output is kept; of layers that are not chosen, in a last place that is not read.
        place = np.asarray([chosen.index(i) if i in chosen else len(chosen) for i in range(vision.layers)], np.int32)

        def run(layer: nn.Module, state: tuple[Array, Array | None], full: Array, place: Array, masks, tables):
            x, kept = state
            x, _ = layer(x, full, masks, tables)
            if kept is not None:  # outside the layer, whose inputs are saved for the backward pass
                kept = jax.lax.dynamic_update_index_in_dim(kept, x, place, axis=0)
            return (x, kept), None

        stack = nn.scan(
            run,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),
            length=vision.layers,
            unroll=config.compute.unroll or vision.layers,
            metadata_params={nn.PARTITION_NAME: None},
        )
        layer = remat(VisionLayer, config)(config, name="layers")
        kept = constrain(jnp.zeros((len(chosen) + 1, *x.shape), dtype), None, "batch", None, None) if chosen else None
        (x, kept), _ = stack(layer, (x, kept), jnp.asarray(full), jnp.asarray(place), masks, tables)
        block = vision.merge_size**2
        merged = (rows, slots * patches // block, block * vision.width)
        tokens = _two_layers(config, _norm(config, "merger_norm")(x).reshape(merged), "merger_")
        if kept is None:
            return VisualFeatures(tokens, None)
        mergers = nn.vmap(
            DeepStackMerger,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            metadata_params={nn.PARTITION_NAME: None},
        )
        features = mergers(config, name="merger_deepstack")(kept[: len(chosen)].reshape(len(chosen), *merged))
        return VisualFeatures(tokens, constrain(features, None, "batch", None, None))


def _masks(positions_BxPx2: Int[Array, "B P 2"], valid_BxP: Bool[Array, "B P"], window: int, backend: str):
    """Masks over the whole image and over windows of `window` patches a side (0: over the whole image again)."""
    image = valid_BxP.astype(jnp.int32)
    image_mask = make_mask(Segments(image, image, causal=False), backend)
    if not window:
        return image_mask, image_mask
    windows = positions_BxPx2 // window
    stride = jnp.int32(2**15)  # more windows than an image has side by side
    number = jnp.where(valid_BxP, windows[..., 0] * stride + windows[..., 1] + 1, 0)
    return image_mask, make_mask(Segments(number, number, causal=False), backend)
