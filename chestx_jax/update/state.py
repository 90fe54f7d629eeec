"""The train state: step number, parameters, optimizer state. Randomness is a function of (seed, step), so that a
resumed run draws what an uninterrupted one would have drawn."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Int

from chestx_jax import sharding
from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.types import Array


@struct.dataclass
class TrainState:
    step: Int[Array, ""]  # optimizer steps done, those without an update included
    params: dict
    moments: tuple  # the optimizer's state
    skipped: Int[Array, ""]  # steps without an update because their loss or gradient was not finite
    skipped_in_a_row: Int[Array, ""]  # those since the last update


COUNTERS = ("skipped", "skipped_in_a_row")  # absent from checkpoints of earlier versions


def initial_state(params, transform: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    zero = jnp.int32(0)
    return TrainState(step=zero, params=params, moments=transform.init(params), skipped=zero, skipped_in_a_row=zero)


def state_shapes(config: ModelConfig, transform: optax.GradientTransformation) -> TrainState:
    """The state as ShapeDtypeStructs."""
    return jax.eval_shape(lambda params: initial_state(params, transform), qwen_vl.shapes(config))


def state_shardings(
    config: ModelConfig, transform: optax.GradientTransformation, mesh, offload: bool = False
) -> TrainState:
    """The state's shardings: moments are split as their parameters, in the host's memory with `offload`; counters are
    replicated. Frozen parameters have no moments. Raises UserError where the devices cannot reach the host's memory."""
    params = qwen_vl.shardings(config, mesh)
    moments = optax.tree.map_params(
        transform,
        lambda moment, param_sharding: moment if _is_masked(moment) else param_sharding,
        state_shapes(config, transform).moments,
        sharding.in_host_memory(params) if offload else params,
        transform_non_params=lambda _: sharding.replicated(mesh),
        is_leaf=_is_masked,
    )
    counter = sharding.replicated(mesh)
    return TrainState(step=counter, params=params, moments=moments, skipped=counter, skipped_in_a_row=counter)


def _is_masked(moment) -> bool:
    return isinstance(moment, optax.MaskedNode)


def step_key(seed: int, step: Array, stream: int) -> Array:
    """The PRNG key of a step; `stream` keeps different uses of one step apart."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
