"""Linear layers, norms, rematerialisation. Each parameter is declared once: shape, dtype, initializer, logical axes."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from chestx_jax.model import lora
from chestx_jax.model.config import ModelConfig
from chestx_jax.sharding import HOST_MEMORY


def with_axes(init: Callable, axes: tuple[str | None, ...]) -> Callable:
    """An initializer that also carries the parameter's logical axes."""
    return nn.with_partitioning(init, axes)


class Linear(nn.Module):
    """`x · kernel + bias` over the last dimension; the kernel is [in, out], its axes are (axis_in, axis_out).

    `residual` marks layers whose output is added to the residual stream; they may start smaller, or at 0.
    """

    features: int
    axes: tuple[str | None, str | None]
    config: ModelConfig
    bias: bool = False
    residual: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        compute = self.config.compute
        init = nn.initializers.normal(self.config.residual_range if self.residual else self.config.initializer_range)
        kernel = self.param("kernel", with_axes(init, self.axes), (x.shape[-1], self.features), compute.param_dtype)
        y = x @ kernel.astype(compute.dtype)
        if lora.has_adapter(self.config, self.path):
            y = y + self._adapter(x)
        if not self.bias:
            return y
        bias = self.param(
            "bias", with_axes(nn.initializers.zeros, self.axes[1:]), (self.features,), compute.param_dtype
        )
        return y + jnp.expand_dims(bias.astype(compute.dtype), tuple(range(y.ndim - 1)))

    def _adapter(self, x: Array) -> Array:
        """The low-rank term (see `model.lora`), with dropout of its input where the caller passes a dropout key."""
        compute, tuning = self.config.compute, self.config.tuning
        small = nn.initializers.normal(x.shape[-1] ** -0.5)
        shapes = (x.shape[-1], tuning.rank), (tuning.rank, self.features)
        a = self.param("lora_a", with_axes(small, (self.axes[0], None)), shapes[0], compute.param_dtype)
        b = self.param("lora_b", with_axes(nn.initializers.zeros, (None, self.axes[1])), shapes[1], compute.param_dtype)
        if tuning.dropout and self.has_rng("dropout"):
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - tuning.dropout, x.shape)
            x = jnp.where(keep, x / jnp.asarray(1 - tuning.dropout, x.dtype), jnp.zeros((), x.dtype))
        scale = jnp.asarray(lora.adapter_scale(self.config), x.dtype)
        return (x @ a.astype(compute.dtype)) @ b.astype(compute.dtype) * scale


class RMSNorm(nn.Module):
    """Root-mean-square norm with fp32 statistics, as transformers' Qwen2RMSNorm."""

    epsilon: float
    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        dtype = self.config.compute.param_dtype
        scale = self.param("scale", with_axes(nn.initializers.ones, (None,)), (x.shape[-1],), dtype)
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return normed.astype(x.dtype) * jnp.expand_dims(scale.astype(x.dtype), tuple(range(x.ndim - 1)))


class LayerNorm(nn.Module):
    """Layer norm with fp32 statistics, as torch.nn.LayerNorm."""

    epsilon: float
    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        dtype = self.config.compute.param_dtype
        scale = self.param("scale", with_axes(nn.initializers.ones, (None,)), (x.shape[-1],), dtype)
        bias = self.param("bias", with_axes(nn.initializers.zeros, (None,)), (x.shape[-1],), dtype)
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        lead = tuple(range(x.ndim - 1))
        scaled = normed * jnp.expand_dims(scale.astype(jnp.float32), lead)
        return (scaled + jnp.expand_dims(bias.astype(jnp.float32), lead)).astype(x.dtype)


def quick_gelu(x: Float[Array, "... F"]) -> Float[Array, "... F"]:
    """x · sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(x * jnp.asarray(1.702, x.dtype))


OFFLOADED = ("layer_input", "query", "key", "value", "attended")  # names of a decoder layer's activations


def remat(layer: type[nn.Module], config: ModelConfig) -> type[nn.Module]:
    """The layer class, rematerialised in the backward pass as `config.compute.remat` says."""
    if config.compute.remat == "none":
        return layer
    policies = jax.checkpoint_policies
    policy = {
        "layer": None,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=list(OFFLOADED),
            offload_src="device",
            offload_dst=HOST_MEMORY,
        ),
    }[config.compute.remat]
    return nn.remat(layer, policy=policy, prevent_cse=False)  # inside a scan CSE cannot undo the rematerialisation
