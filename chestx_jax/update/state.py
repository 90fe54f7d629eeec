"""What a step takes and hands back: the step number, the parameters, the optimizer's state. Randomness is a function
of (seed, step), so a resumed run draws what the uninterrupted one would have drawn."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int

from chestx_jax import sharding
from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.types import Array


@struct.dataclass
class TrainState:
    step: Int[Array, ""]
    params: dict
    moments: tuple


def fresh(params, transform: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(step=jnp.int32(0), params=params, moments=transform.init(params))


def state_shapes(config: ModelConfig, transform: optax.GradientTransformation) -> TrainState:
    """The state as ShapeDtypeStructs."""
    return jax.eval_shape(lambda params: fresh(params, transform), qwen_vl.shapes(config))


def state_shardings(
    config: ModelConfig, transform: optax.GradientTransformation, mesh, offload: bool = False
) -> TrainState:
    """Moments are split as their parameters are, in the host's memory with `offload`; counters lie everywhere. Weights
    that do not learn have no moments. Raises UserError where the devices cannot reach the host's memory."""
    params = qwen_vl.shardings(config, mesh)
    moments_at = sharding.in_host_memory(params) if offload else params
    shapes = state_shapes(config, transform)
    whole = NamedSharding(mesh, PartitionSpec())
    moments = optax.tree.map_params(
        transform,
        lambda moment, at: moment if _masked(moment) else at,
        shapes.moments,
        moments_at,
        transform_non_params=lambda _: whole,
        is_leaf=_masked,
    )
    return TrainState(step=whole, params=params, moments=moments)


def _masked(moment) -> bool:
    return isinstance(moment, optax.MaskedNode)


def key_at(seed: int, step: Array, stream: int) -> Array:
    """The PRNG key of a step; `stream` keeps different uses of one step apart."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
