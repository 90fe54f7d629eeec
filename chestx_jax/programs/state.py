"""The programs that make a stage's parameters and state, and the abstract forms of both."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from chestx_jax import sharding
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig, with_compute
from chestx_jax.programs.program import Argument, Program
from chestx_jax.recipes import GrpoConfig, JobConfig, SftConfig
from chestx_jax.update import state as states
from chestx_jax.update.optimizer import make_optimizer, rate_at
from chestx_jax.update.state import TrainState


def init_params(job: JobConfig, seed: int, mesh) -> Program:
    """() → random parameters, created in their shardings."""
    return Program(lambda: qwen_vl.init(job.model, jax.random.key(seed)), {}, qwen_vl.shardings(job.model, mesh))


def init_state(job: JobConfig, stage: SftConfig | GrpoConfig, mesh) -> Program:
    """Parameters (donated) → the state before a stage's first step."""
    transform = stage_optimizer(job.model, stage)
    params, state = abstract_params(job.model, mesh), abstract_state(job.model, stage, mesh)
    return Program(
        lambda params: states.initial_state(params, transform), {"params": params}, state.shardings, ("params",)
    )


def init_reference(job: JobConfig, stage: GrpoConfig, mesh) -> Program:
    """The policy's first parameters → a copy of them as the reference model, in its own dtype and memory."""
    dtype = jnp.dtype(stage.reference.dtype)
    return Program(
        lambda params: jax.tree.map(lambda x: x.astype(dtype), params),
        {"params": abstract_params(job.model, mesh)},
        abstract_reference(job.model, stage, mesh).shardings,
    )


def all_finite(job: JobConfig, mesh) -> Program:
    """Parameters → whether every one of them is a finite number."""

    def finite(params):
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()

    return Program(finite, {"params": abstract_params(job.model, mesh)}, None)


def abstract_params(model: ModelConfig, mesh) -> Argument:
    """The model's parameters."""
    return Argument(qwen_vl.shapes(model), qwen_vl.shardings(model, mesh))


def abstract_state(model: ModelConfig, stage: SftConfig | GrpoConfig, mesh) -> Argument:
    """The stage's train state, its moments in host memory with `optimizer.offload`."""
    transform = stage_optimizer(model, stage)
    shardings = states.state_shardings(model, transform, mesh, stage.optimizer.offload)
    return Argument(states.state_shapes(model, transform), shardings)


def abstract_reference(model: ModelConfig, stage: GrpoConfig, mesh) -> Argument:
    """The reference model's parameters, in host memory with `reference.offload`."""
    shardings = qwen_vl.shardings(model, mesh)
    shapes = qwen_vl.shapes(with_compute(model, param_dtype=stage.reference.dtype))
    return Argument(shapes, sharding.in_host_memory(shardings) if stage.reference.offload else shardings)


def stage_optimizer(model: ModelConfig, stage: SftConfig | GrpoConfig) -> optax.GradientTransformationExtraArgs:
    """The stage's optimizer over the trainable parameters; its schedule counts optimizer steps."""
    transform = make_optimizer(stage.optimizer, _optimizer_steps(stage))
    if lora.fully_trainable(model):
        return transform
    return optax.masked(transform, partial(lora.trainable_mask, model))  # frozen: gradient 0, no moments


def current_rate(stage: SftConfig | GrpoConfig, state: TrainState) -> jax.Array:
    """The learning rate of the step that comes after `state`; skipped steps do not move the schedule."""
    return rate_at(stage.optimizer, _optimizer_steps(stage), state.step - state.skipped)


def _optimizer_steps(stage: SftConfig | GrpoConfig) -> int:
    return stage.steps * (stage.optimizer_steps if isinstance(stage, GrpoConfig) else 1)
